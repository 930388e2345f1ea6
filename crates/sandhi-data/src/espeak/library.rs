//! The library itself: loading, calling, unloading. The only unsafe code around espeak-ng.
//!
//! ```text
//! lock ── load ── start ── voice, speed, pitch ── speak ── stop ── unload ── unlock      about 1 ms besides speaking
//! ```
//!
//! The signatures follow `speak_lib.h` of espeak-ng 1.49 to 1.52.

use std::{
    collections::{HashMap, HashSet},
    ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_void},
    sync::{Mutex, OnceLock, PoisonError},
};

use libloading::Library;

use super::{Error, Settings};

/// Names under which the library is looked for.
#[cfg(target_os = "macos")]
const NAMES: &[&str] = &[
    "libespeak-ng.1.dylib",
    "libespeak-ng.dylib",
    "/opt/homebrew/lib/libespeak-ng.dylib",
    "/usr/local/lib/libespeak-ng.dylib",
];
#[cfg(windows)]
const NAMES: &[&str] = &["libespeak-ng.dll", "espeak-ng.dll"];
#[cfg(not(any(target_os = "macos", windows)))]
const NAMES: &[&str] = &["libespeak-ng.so.1", "libespeak-ng.so"];

/// Call the callback with samples while `espeak_Synth` runs, and return when it is done.
const OUTPUT_SYNCHRONOUS: c_int = 2;
/// Phoneme events; as IPA; return an error instead of ending the process.
const OPTIONS: c_int = 0x0001 | 0x0002 | 0x8000;
/// `espeak_Synth`: positions count characters; the text is UTF-8.
const POSITION_CHARACTER: c_int = 1;
const TEXT_UTF8: c_uint = 1;
/// Parameters of `espeak_SetParameter`.
const PARAMETER_RATE: c_int = 1;
const PARAMETER_PITCH: c_int = 3;
const PARAMETER_RANGE: c_int = 4;

const EVENT_END_OF_LIST: c_int = 0;
const EVENT_WORD: c_int = 1;
const EVENT_END: c_int = 5;
const EVENT_PHONEME: c_int = 7;

/// `espeak_EVENT`.
#[repr(C)]
struct RawEvent {
    kind: c_int,
    unique_identifier: c_uint,
    text_position: c_int,
    length: c_int,
    audio_position_ms: c_int,
    sample: c_int,
    user_data: *mut c_void,
    /// A union; for phonemes the name, which ends at the first zero or fills all eight bytes.
    id: [u8; 8],
}

/// `espeak_VOICE`.
#[repr(C)]
struct RawVoice {
    name: *const c_char,
    /// Priority, name, zero; repeated; ended by a priority of zero.
    languages: *const c_char,
    identifier: *const c_char,
    gender: u8,
    age: u8,
    variant: u8,
    reserved: u8,
    score: c_int,
    spare: *mut c_void,
}

type Callback = unsafe extern "C" fn(*mut i16, c_int, *mut RawEvent) -> c_int;
type Initialize = unsafe extern "C" fn(c_int, c_int, *const c_char, c_int) -> c_int;
type SetSynthCallback = unsafe extern "C" fn(Callback);
type SetVoiceByName = unsafe extern "C" fn(*const c_char) -> c_int;
type SetParameter = unsafe extern "C" fn(c_int, c_int, c_int) -> c_int;
type ListVoices = unsafe extern "C" fn(*mut RawVoice) -> *const *const RawVoice;
type Info = unsafe extern "C" fn(*mut *const c_char) -> *const c_char;
type Terminate = unsafe extern "C" fn() -> c_int;
type SetRandSeed = unsafe extern "C" fn(c_long);
type Synth = unsafe extern "C" fn(
    *const c_void,
    usize,
    c_uint,
    c_int,
    c_uint,
    c_uint,
    *mut c_uint,
    *mut c_void,
) -> c_int;

unsafe extern "C" {
    /// The C library's: espeak-ng up to 1.51 draws breath and noise from its `rand`.
    fn srand(seed: c_uint);
}

/// What happened while a text was spoken.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    /// Samples since the start.
    pub(super) sample: usize,
    pub(super) kind: EventKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum EventKind {
    /// A word starts, or a pause before it. The position counts characters of the text from 1.
    Word { text_position: usize },
    /// A phoneme starts; silence where the name is empty.
    Phoneme(String),
    /// A clause ends.
    End,
}

/// Samples and events of one text.
#[derive(Debug, Default)]
pub(super) struct Recording {
    pub(super) samples: Vec<i16>,
    pub(super) events: Vec<Event>,
    pub(super) sample_rate_hz: u32,
}

/// The voices of the installation. It is read once; installing voices needs a new process.
#[derive(Debug)]
pub(super) struct Catalog {
    /// Language tag to the name of its voice file, which is found without listing all files.
    files: HashMap<String, String>,
    variants: HashSet<String>,
}

static CATALOG: OnceLock<Catalog> = OnceLock::new();

impl Catalog {
    /// The file name of a voice: `en-us+f3` is `gmw/en-US+f3`.
    pub(super) fn find(&self, voice: &str) -> Option<String> {
        match voice.split_once('+') {
            None => self.files.get(voice).cloned(),
            Some((language, variant)) => {
                let file = self.files.get(language)?;
                self.variants.contains(variant).then(|| format!("{file}+{variant}"))
            }
        }
    }
}

/// A library that was started.
pub(super) struct Instance {
    library: Library,
    name: &'static str,
    sample_rate_hz: u32,
}

/// Where the next call finds its library. The lock allows one call at a time.
enum Slot {
    /// It is loaded for the call and unloaded after it.
    Fresh,
    /// The system keeps the library loaded (or another part of the process does), so that unloading does
    /// not reset it; and it can be stopped only once. It is kept, and a text's sound depends a
    /// little (phase, flutter) on the texts before.
    Kept(Option<Instance>),
}

static SLOT: Mutex<Slot> = Mutex::new(Slot::Fresh);

/// Calls `use_it` with a library in its initial state; all other callers wait.
pub(super) fn with<R>(use_it: impl FnOnce(&Instance) -> Result<R, Error>) -> Result<R, Error> {
    let mut slot = SLOT.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(*slot, Slot::Fresh) && NAMES.iter().any(|name| is_resident(name)) {
        *slot = Slot::Kept(None);
    }
    match &mut *slot {
        Slot::Kept(kept) => {
            if kept.is_none() {
                *kept = Some(Instance::start()?);
            }
            use_it(kept.as_ref().expect("it was just started"))
        }
        Slot::Fresh => {
            let instance = Instance::start()?;
            let result = use_it(&instance);
            let name = instance.name;
            instance.stop();
            if is_resident(name) {
                *slot = Slot::Kept(None);
            }
            result
        }
    }
}

/// Whether a library of that name is loaded already.
#[cfg(unix)]
fn is_resident(name: &str) -> bool {
    use libloading::os::unix;
    const RTLD_NOLOAD: c_int = if cfg!(target_os = "macos") { 0x10 } else { 0x4 };
    // SAFETY: nothing is loaded, so no initializer runs; the handle is dropped at once.
    unsafe { unix::Library::open(Some(name), unix::RTLD_NOW | RTLD_NOLOAD) }.is_ok()
}

/// Unknown, so that the library is kept.
#[cfg(not(unix))]
fn is_resident(_: &str) -> bool {
    true
}

impl Instance {
    fn start() -> Result<Self, Error> {
        // SAFETY: espeak-ng's initializers do nothing but register themselves with the C library.
        let found =
            NAMES.iter().find_map(|&name| Some((unsafe { Library::new(name) }.ok()?, name)));
        let Some((library, name)) = found else {
            return Err(Error::Missing { name: NAMES[0].to_owned() });
        };
        let mut instance = Self { library, name, sample_rate_hz: 0 };
        let initialize: Initialize = instance.function("espeak_Initialize")?;
        // Looked up before anything is started, so that what follows cannot fail half way.
        instance.function::<Terminate>("espeak_Terminate")?;
        instance.function::<Info>("espeak_Info")?;
        instance.function::<ListVoices>("espeak_ListVoices")?;
        instance.function::<SetVoiceByName>("espeak_SetVoiceByName")?;
        instance.function::<SetParameter>("espeak_SetParameter")?;
        instance.function::<Synth>("espeak_Synth")?;
        let set_callback: SetSynthCallback = instance.function("espeak_SetSynthCallback")?;
        // SAFETY: called once per loaded library, under the lock; the path may be null.
        let code = unsafe { initialize(OUTPUT_SYNCHRONOUS, 0, std::ptr::null(), OPTIONS) };
        match u32::try_from(code) {
            Ok(rate) if rate > 0 => instance.sample_rate_hz = rate,
            _ => return Err(Error::Start { code }),
        }
        // SAFETY: the callback lives as long as the program.
        unsafe { set_callback(collect) };
        Ok(instance)
    }

    /// Ends the library's thread, then unloads it.
    fn stop(self) {
        if let Ok(terminate) = self.function::<Terminate>("espeak_Terminate") {
            // SAFETY: called once per loaded library, after everything else.
            unsafe { terminate() };
        }
    }

    fn function<F: Copy>(&self, name: &'static str) -> Result<F, Error> {
        // SAFETY: every use names the type that `speak_lib.h` declares for the function, and
        // the pointer is used only while `self` holds the library.
        match unsafe { self.library.get::<F>(name.as_bytes()) } {
            Ok(symbol) => Ok(*symbol),
            Err(_) => Err(Error::Function { library: self.name.to_owned(), function: name }),
        }
    }

    /// The version, as far as its first space.
    pub(super) fn version(&self) -> String {
        let Ok(info) = self.function::<Info>("espeak_Info") else { return String::new() };
        // SAFETY: the argument may be null; the result is a constant string of the library.
        let version = unsafe { text_at(info(std::ptr::null_mut())) };
        version.split_whitespace().next().unwrap_or_default().to_owned()
    }

    /// The voices, listed at the first call.
    pub(super) fn catalog(&self) -> &'static Catalog {
        CATALOG.get_or_init(|| {
            let mut best: HashMap<String, (u8, String)> = HashMap::new();
            for (identifier, languages) in self.list(None) {
                // Voices of other engines need their own data; variants belong to all languages.
                if identifier.starts_with("mb/") || identifier.starts_with("!v/") {
                    continue;
                }
                for (priority, language) in languages {
                    let entry = best.entry(language);
                    let candidate = (priority, identifier.clone());
                    entry
                        .and_modify(|held| *held = candidate.clone().min(held.clone()))
                        .or_insert(candidate);
                }
            }
            let variants = self.list(Some(c"variant"));
            Catalog {
                files: best.into_iter().map(|(language, (_, file))| (language, file)).collect(),
                variants: variants
                    .into_iter()
                    .filter_map(|(identifier, _)| Some(identifier.strip_prefix("!v/")?.to_owned()))
                    .collect(),
            }
        })
    }

    /// Voice files with the languages that they speak; a low priority is a good one.
    fn list(&self, languages: Option<&CStr>) -> Vec<(String, Vec<(u8, String)>)> {
        let Ok(list) = self.function::<ListVoices>("espeak_ListVoices") else { return Vec::new() };
        let mut spec = RawVoice {
            name: std::ptr::null(),
            languages: languages.map_or(std::ptr::null(), CStr::as_ptr),
            identifier: std::ptr::null(),
            gender: 0,
            age: 0,
            variant: 0,
            reserved: 0,
            score: 0,
            spare: std::ptr::null_mut(),
        };
        let mut voices = Vec::new();
        // SAFETY: the list is an array of pointers to voices, ended by null, which stays valid until the
        // next call; nothing else calls, because this runs under the lock.
        unsafe {
            let spec = if languages.is_some() { &raw mut spec } else { std::ptr::null_mut() };
            let mut next = list(spec);
            while !next.is_null() && !(*next).is_null() {
                let voice = &**next;
                let mut names = Vec::new();
                let mut at = voice.languages;
                while !at.is_null() && *at != 0 {
                    let priority = at.cast::<u8>().read();
                    let name = CStr::from_ptr(at.add(1));
                    names.push((priority, name.to_string_lossy().into_owned()));
                    at = at.add(2 + name.count_bytes());
                }
                voices.push((text_at(voice.identifier), names));
                next = next.add(1);
            }
        }
        voices
    }

    pub(super) fn synthesize(&self, text: &str, settings: &Settings) -> Result<Recording, Error> {
        let unknown = || Error::UnknownVoice { voice: settings.voice.clone() };
        let voice = self.catalog().find(&settings.voice).ok_or_else(unknown)?;
        let voice = CString::new(voice).map_err(|_| unknown())?;
        let set_voice: SetVoiceByName = self.function("espeak_SetVoiceByName")?;
        let set_parameter: SetParameter = self.function("espeak_SetParameter")?;
        let synth: Synth = self.function("espeak_Synth")?;
        // SAFETY: the name is a C string.
        if unsafe { set_voice(voice.as_ptr()) } != 0 {
            return Err(unknown());
        }
        let parameters = [
            (PARAMETER_RATE, settings.words_per_minute),
            (PARAMETER_PITCH, settings.pitch.min(99)),
            (PARAMETER_RANGE, settings.pitch_range.min(99)),
        ];
        for (parameter, value) in parameters {
            let value = c_int::try_from(value).unwrap_or(c_int::MAX);
            // SAFETY: plain numbers; 0 says that the value is absolute.
            unsafe { set_parameter(parameter, value, 0) };
        }
        // SAFETY: the C library's generator is only read under the lock by espeak-ng; other users
        // of `rand` in the process see a sequence, as they may expect.
        unsafe { srand(1) };
        if let Ok(seed) = self.function::<SetRandSeed>("espeak_ng_SetRandSeed") {
            // SAFETY: espeak-ng 1.52 has a generator of its own.
            unsafe { seed(1) };
        }

        let bytes: Vec<u8> =
            text.bytes().map(|b| if b == 0 { b' ' } else { b }).chain([0]).collect();
        let mut recording = Recording { sample_rate_hz: self.sample_rate_hz, ..Default::default() };
        // SAFETY: the text ends with a zero; the recording outlives the call, which is synchronous.
        let code = unsafe {
            synth(
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                POSITION_CHARACTER,
                0,
                TEXT_UTF8,
                std::ptr::null_mut(),
                (&raw mut recording).cast(),
            )
        };
        if code != 0 {
            return Err(Error::Synthesis { code, text: text.to_owned() });
        }
        Ok(recording)
    }
}

/// Copies a C string; null is empty.
///
/// # Safety
///
/// `text` is null or points to a string that ends with a zero.
unsafe fn text_at(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as promised by the caller.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Receives a block of samples with its events; the user data point to the [`Recording`].
///
/// # Safety
///
/// Called by espeak-ng alone, while [`Instance::synthesize`] waits.
unsafe extern "C" fn collect(samples: *mut i16, n_samples: c_int, events: *mut RawEvent) -> c_int {
    if events.is_null() {
        return 0;
    }
    // SAFETY: every event, also the one that ends the list, carries the user data of the call.
    let recording = unsafe { (*events).user_data.cast::<Recording>().as_mut() };
    let Some(recording) = recording else { return 0 };
    if let (false, Ok(n_samples)) = (samples.is_null(), usize::try_from(n_samples)) {
        // SAFETY: espeak-ng passes that many samples.
        recording
            .samples
            .extend_from_slice(unsafe { std::slice::from_raw_parts(samples, n_samples) });
    }
    let mut next = events;
    loop {
        // SAFETY: the list ends with an event of kind 0, which is not passed.
        let event = unsafe { &*next };
        let kind = match event.kind {
            EVENT_END_OF_LIST => return 0,
            EVENT_WORD => Some(EventKind::Word {
                text_position: usize::try_from(event.text_position).unwrap_or(0),
            }),
            EVENT_END => Some(EventKind::End),
            EVENT_PHONEME => {
                let name = event.id.split(|&b| b == 0).next().unwrap_or_default();
                Some(EventKind::Phoneme(String::from_utf8_lossy(name).into_owned()))
            }
            _ => None,
        };
        if let Some(kind) = kind {
            let sample = usize::try_from(event.sample).unwrap_or(0);
            recording.events.push(Event { sample, kind });
        }
        // SAFETY: not past the end of the list.
        next = unsafe { next.add(1) };
    }
}
