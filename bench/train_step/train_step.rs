//! Our side of the training-step benchmark: one step of a 13.8 M language model for every line on
//! standard input.
//!
//! ```text
//! train_step WEIGHTS.safetensors       writes the initial weights there, prints {"ready": true}
//! > step 0                             {"step": 0, "loss": 8.4, "seconds": 0.71, …}
//! ```
//!
//! `bench/train_step/compare.py` drives it against PyTorch, step by step in turn. With
//! `train_step --alone N` it takes N steps by itself.

use std::{
    collections::HashMap,
    io::{BufRead, Write},
    time::Instant,
};

use burn::{module::Param, optim::GradientsParams, prelude::*};
use sandhi_nn::{
    init::Init,
    ops::{self, AdamStep},
    ragged::{Offsets, Ragged},
    transformer::{CausalLm, Dropout, TransformerConfig},
    weights::{self, ParameterMap},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const N_TOKENS: usize = 4096;
const N_SEQUENCES: usize = 8;
const LENGTH: usize = 256;

/// Keeps freed pages: a step asks for the same gigabyte again and again, and having it cleared by
/// the system each time costs a fifth of the step.
fn keep_pages() {
    /// `mi_option_purge_delay` of mimalloc's header, which the bindings leave out.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: sets a number in the allocator's table of options.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}

fn main() {
    keep_pages();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let config = TransformerConfig {
        d_model: 384,
        n_layers: 6,
        n_heads: 6,
        n_kv_heads: None,
        d_head: None,
        d_ff: 1024,
        rope_theta: 10_000.0,
        rope_scaling: None,
        unrotated: Vec::new(),
        norm_eps: 1e-5,
        tie_embeddings: false,
        qk_norm: false,
        attention_bias: false,
        output_bias: false,
        window: None,
    };
    let device = Device::flex().autodiff();
    let mut run = Run {
        model: config.init(N_TOKENS, &Init::new(1, &device)),
        moments: HashMap::new(),
        n_steps: 0,
    };
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--alone", n] => {
            for step in 0..n.parse().expect("a number of steps") {
                println!("{}", run.step(step));
            }
        }
        [file] => {
            run.save(file);
            println!("{{\"ready\": true}}");
            for line in std::io::stdin().lock().lines() {
                let line = line.expect("standard input is readable");
                let step = line.trim_start_matches("step ").parse().expect("a step's number");
                println!("{}", run.step(step));
                std::io::stdout().flush().expect("standard output is writable");
            }
        }
        _ => eprintln!("usage: train_step WEIGHTS.safetensors | train_step --alone N"),
    }
}

/// Token `i` of sequence `sequence` at a step: a formula, so that both sides have the same data.
fn token(step: usize, sequence: usize, i: usize) -> u32 {
    let x = (step * 7919 + sequence * 104_729 + i * i * 31 + i * 17) % 65_521;
    (x * x % N_TOKENS) as u32
}

struct Run {
    model: CausalLm,
    moments: HashMap<String, (Tensor<1>, Tensor<1>)>,
    n_steps: u64,
}

impl Run {
    fn save(&self, file: &str) {
        let weights = weights::weights(&self.model);
        let tensors = weights.iter().map(|(name, tensor)| {
            let bytes = bytemuck::cast_slice(&tensor.values);
            let shape = tensor.shape.clone();
            (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes))
        });
        let tensors = tensors.map(|(name, view)| (name, view.expect("the sizes fit")));
        safetensors::serialize_to_file(tensors, None, file.as_ref()).expect("the file is writable");
    }

    /// One step; returns a line of JSON.
    fn step(&mut self, step: usize) -> String {
        let ids = |shift: usize| -> Vec<u32> {
            (0..N_SEQUENCES)
                .flat_map(|s| (0..LENGTH).map(move |i| token(step, s, i + shift)))
                .collect()
        };
        let (inputs, targets) = (ids(0), ids(1));
        let n_rows = inputs.len();

        let start = Instant::now();
        let offsets = Offsets::from_lengths(&[LENGTH; N_SEQUENCES]);
        let input = Ragged { values: self.model.embed(&inputs), offsets };
        let hidden = self.model.forward(&input, &[], Dropout::OFF).last;
        drop(input);
        let logits = self.model.logits(hidden);
        let loss = ops::cross_entropy(logits, &targets, &vec![1.0 / n_rows as f32; n_rows]);
        let value = loss.clone().inner().into_scalar::<f32>();
        let forward = start.elapsed();
        let mut grads = GradientsParams::from_grads(loss.backward(), &self.model);
        let backward = start.elapsed() - forward;
        self.n_steps += 1;
        let mut update = Update {
            grads: &mut grads,
            moments: &mut self.moments,
            step: AdamStep {
                lr: 1e-3,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.01,
                step: self.n_steps,
            },
        };
        self.model = weights::map_parameters(self.model.clone(), &mut update);
        let total = start.elapsed();
        let seconds = |duration: std::time::Duration| duration.as_secs_f64();
        format!(
            "{{\"step\": {step}, \"loss\": {value}, \"seconds\": {:.4}, \"forward\": {:.4}, \
             \"backward\": {:.4}, \"update\": {:.4}}}",
            seconds(total),
            seconds(forward),
            seconds(backward),
            seconds(total - forward - backward),
        )
    }
}

struct Update<'a> {
    grads: &'a mut GradientsParams,
    moments: &'a mut HashMap<String, (Tensor<1>, Tensor<1>)>,
    step: AdamStep,
}

impl ParameterMap for Update<'_> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(grad) = self.grads.remove::<D>(param.id) else { return param };
        let (id, value, mapper) = param.consume();
        let shape = value.dims();
        let n: usize = shape.iter().product();
        let value: Tensor<1> = value.inner().reshape([n]);
        let device = value.device();
        let (m, v) = self
            .moments
            .remove(name)
            .unwrap_or_else(|| (Tensor::zeros([n], &device), Tensor::zeros([n], &device)));
        let (value, m, v) = ops::adamw(value, grad.reshape([n]), m, v, &self.step);
        self.moments.insert(name.to_owned(), (m, v));
        let value = value.reshape(shape).autodiff().require_grad();
        Param::from_mapped_value(id, value, mapper)
    }
}
