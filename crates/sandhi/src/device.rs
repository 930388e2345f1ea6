//! `--device`: where tensors live.
//!
//! ```text
//! cpu                      always there
//! wgpu, wgpu:0, wgpu:1     the best device, the first and second discrete GPU; likewise vulkan, metal
//! cuda, cuda:1             the first and second CUDA device
//! ```
//!
//! Backends other than the CPU's are cargo features of the same names.

use std::str::FromStr;

use anyhow::bail;
use burn::prelude::{Device, Tensor};

/// A backend with an optional index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceArg {
    backend: Backend,
    index: Option<usize>,
}

/// What tensors are computed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    Cpu,
    Wgpu,
    Vulkan,
    Cuda,
    Metal,
}

const BACKENDS: [(Backend, &str, bool); 5] = [
    (Backend::Cpu, "cpu", true),
    (Backend::Wgpu, "wgpu", cfg!(feature = "wgpu")),
    (Backend::Vulkan, "vulkan", cfg!(feature = "vulkan")),
    (Backend::Cuda, "cuda", cfg!(feature = "cuda")),
    (Backend::Metal, "metal", cfg!(feature = "metal")),
];

/// Every backend's name and whether this program was built with it.
pub fn backends() -> impl Iterator<Item = (&'static str, bool)> {
    BACKENDS.iter().map(|&(_, name, present)| (name, present))
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, index) = match text.split_once(':') {
            None => (text, None),
            Some((name, index)) => match index.parse() {
                Ok(index) => (name, Some(index)),
                Err(_) => return Err(format!("{index:?} is not an index, expected e.g. {name}:0")),
            },
        };
        let Some(&(backend, ..)) = BACKENDS.iter().find(|(_, known, _)| *known == name) else {
            let known = "cpu, wgpu[:i], vulkan[:i], cuda[:i] or metal[:i]";
            return Err(format!("unknown device {name:?}, expected {known}"));
        };
        if backend == Backend::Cpu && index.is_some() {
            return Err("the cpu is one device and has no index".to_owned());
        }
        Ok(Self { backend, index })
    }
}

impl std::fmt::Display for DeviceArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = BACKENDS.iter().find(|(backend, ..)| *backend == self.backend);
        f.write_str(name.map_or("", |(_, name, _)| name))?;
        match self.index {
            None => Ok(()),
            Some(index) => write!(f, ":{index}"),
        }
    }
}

impl DeviceArg {
    /// Opens the device and computes something on it, so that a missing one is an error here and not
    /// in the middle of a run.
    ///
    /// # Errors
    ///
    /// When the backend was not built in, or there is no such device.
    pub fn open(self) -> anyhow::Result<Device> {
        // Without a GPU feature every arm returns.
        #[allow(unused_variables)]
        let device = match self.backend {
            Backend::Cpu => return Ok(Device::flex()),
            #[cfg(feature = "wgpu")]
            Backend::Wgpu => Device::wgpu(self.kind()),
            #[cfg(feature = "vulkan")]
            Backend::Vulkan => Device::vulkan(self.kind()),
            #[cfg(feature = "metal")]
            Backend::Metal => Device::metal(self.kind()),
            #[cfg(feature = "cuda")]
            Backend::Cuda => Device::cuda(self.index.unwrap_or(0)),
            #[allow(unreachable_patterns)]
            _ => {
                let name = DeviceArg { index: None, ..self };
                bail!(
                    "device {self} was not built in; build with `cargo build --release --features {name}`"
                );
            }
        };
        #[allow(unreachable_code)]
        tried(self, device)
    }

    #[cfg(feature = "wgpu")]
    fn kind(self) -> burn::tensor::DeviceKind {
        use burn::tensor::DeviceKind;
        self.index.map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu)
    }
}

/// Backends panic where there is no such device; that is caught here, once, and said in one line.
fn tried(arg: DeviceArg, device: Device) -> anyhow::Result<Device> {
    checked(arg, || {
        Tensor::<1>::ones([2], &device).sum().into_data();
    })?;
    Ok(device)
}

fn checked(arg: DeviceArg, work: impl FnOnce() + std::panic::UnwindSafe) -> anyhow::Result<()> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = std::panic::catch_unwind(work);
    std::panic::set_hook(hook);
    match result {
        Ok(()) => Ok(()),
        Err(panic) => {
            let why = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .and_then(|why| why.lines().next())
                .unwrap_or("it could not be opened");
            bail!("device {arg} cannot be used: {why}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_read_as_they_are_written() {
        for text in ["cpu", "wgpu", "wgpu:1", "vulkan:0", "cuda:3", "metal"] {
            assert_eq!(text.parse::<DeviceArg>().unwrap().to_string(), text);
        }
        for (text, why) in [("gpu", "unknown device"), ("cuda:x", "index"), ("cpu:0", "one device")]
        {
            assert!(text.parse::<DeviceArg>().unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn a_device_that_panics_is_an_error() {
        assert!(tried("cpu".parse().unwrap(), Device::flex()).is_ok());
        // A device without its hardware panics inside the framework.
        let error = checked("metal".parse().unwrap(), || panic!("no adapter")).unwrap_err();
        assert!(error.to_string().contains("metal") && error.to_string().contains("no adapter"));
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn what_was_not_built_in_names_its_feature() {
        let error = "cuda:1".parse::<DeviceArg>().unwrap().open().unwrap_err().to_string();
        assert!(error.contains("cuda:1") && error.contains("--features cuda"), "{error}");
    }
}
