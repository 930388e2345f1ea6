//! Loading ahead: threads work on coming jobs while the consumer is busy; results keep their order.
//!
//! ```text
//! jobs ─ 0 1 2 3 4 … ─┬─ thread: load(2) ─┐
//!                     └─ thread: load(3) ─┴─ waiting room, at most n_ahead ─ next() ─ 0 1 2 …
//! ```

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

/// Why a job gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefetchError<E> {
    /// The loader refused.
    #[error(transparent)]
    Load(E),
    /// The loader, or the iterator of jobs, panicked.
    #[error("loading panicked: {0}")]
    Panicked(String),
    /// The system gave no thread.
    #[error("cannot start a loader thread: {0}")]
    Thread(String),
}

type Loaded<T, E> = Result<T, PrefetchError<E>>;

/// An iterator over loaded jobs, in the order of the jobs. Dropping it stops the threads.
pub struct Prefetch<T, E> {
    room: Arc<Room<T, E>>,
    threads: Vec<JoinHandle<()>>,
    clock: Box<dyn Fn() -> f64 + Send>,
    wait_s: f64,
    n_waits: u64,
}

struct Room<T, E> {
    state: Mutex<State<T, E>>,
    /// A result came in, or there will be none.
    arrived: Condvar,
    /// The consumer took a result, or wants no more.
    taken: Condvar,
    n_ahead: u64,
}

struct State<T, E> {
    results: BTreeMap<u64, Loaded<T, E>>,
    n_taken: u64,
    n_started: u64,
    /// No job with this number or a later one exists.
    end: Option<u64>,
    stopped: bool,
}

impl<T, E> Room<T, E> {
    /// Loaders run outside the lock and inside `catch_unwind`, so the state is always whole.
    fn lock(&self) -> MutexGuard<'_, State<T, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static, E: Send + 'static> Prefetch<T, E> {
    /// Starts `n_threads` threads that load up to `n_ahead` jobs beyond the one last taken (both
    /// at least 1). `clock` gives seconds from any origin; it measures how long [`Iterator::next`]
    /// had to wait.
    ///
    /// An error or panic of one job is that job's result; later jobs go on. A panic of the
    /// iterator of jobs ends the sequence after one [`PrefetchError::Panicked`].
    pub fn new<J, I, L, C>(jobs: I, n_threads: usize, n_ahead: usize, clock: C, load: L) -> Self
    where
        J: Send + 'static,
        I: IntoIterator<Item = J>,
        I::IntoIter: Send + 'static,
        L: Fn(J) -> Result<T, E> + Send + Sync + 'static,
        C: Fn() -> f64 + Send + 'static,
    {
        let room = Arc::new(Room {
            state: Mutex::new(State {
                results: BTreeMap::new(),
                n_taken: 0,
                n_started: 0,
                end: None,
                stopped: false,
            }),
            arrived: Condvar::new(),
            taken: Condvar::new(),
            n_ahead: n_ahead.max(1) as u64,
        });
        let jobs = Arc::new(Mutex::new(jobs.into_iter()));
        let load = Arc::new(load);
        let mut threads = Vec::new();
        for n in 0..n_threads.max(1) {
            let (room_here, jobs, load) = (room.clone(), jobs.clone(), load.clone());
            let thread = std::thread::Builder::new()
                .name(format!("prefetch {n}"))
                .spawn(move || work(&room_here, &jobs, load.as_ref()));
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) if threads.is_empty() => {
                    let mut state = room.lock();
                    state.results.insert(0, Err(PrefetchError::Thread(error.to_string())));
                    state.end = Some(1);
                    break;
                }
                // Fewer threads are slower, not wrong.
                Err(_) => break,
            }
        }
        Self { room, threads, clock: Box::new(clock), wait_s: 0.0, n_waits: 0 }
    }
}

impl<T, E> Prefetch<T, E> {
    /// Seconds that the consumer has waited for data since the start.
    pub fn wait_s(&self) -> f64 {
        self.wait_s
    }

    /// How many times the next result was not ready when it was asked for.
    pub fn n_waits(&self) -> u64 {
        self.n_waits
    }
}

impl<T, E> Iterator for Prefetch<T, E> {
    type Item = Loaded<T, E>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut state = self.room.lock();
        let wanted = state.n_taken;
        let pending = |state: &State<T, E>| {
            !state.results.contains_key(&wanted) && state.end.is_none_or(|end| wanted < end)
        };
        if pending(&state) {
            let start = (self.clock)();
            while pending(&state) {
                state = self.room.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            self.wait_s += (self.clock)() - start;
            self.n_waits += 1;
        }
        let result = state.results.remove(&wanted)?;
        state.n_taken += 1;
        drop(state);
        self.room.taken.notify_all();
        Some(result)
    }
}

impl<T, E> Drop for Prefetch<T, E> {
    fn drop(&mut self) {
        self.room.lock().stopped = true;
        self.room.taken.notify_all();
        for thread in self.threads.drain(..) {
            // A loader's panic was already handed out as a result.
            let _ = thread.join();
        }
    }
}

fn work<J, T, E>(
    room: &Room<T, E>,
    jobs: &Mutex<impl Iterator<Item = J>>,
    load: &impl Fn(J) -> Result<T, E>,
) {
    loop {
        // Number and job are taken under the lock of the jobs, so that they agree.
        let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let number = {
            let mut state = room.lock();
            while !state.stopped && state.n_started >= state.n_taken + room.n_ahead {
                state = room.taken.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stopped || state.end.is_some() {
                return;
            }
            state.n_started += 1;
            state.n_started - 1
        };
        let job = catch_unwind(AssertUnwindSafe(|| jobs.next()));
        if !matches!(job, Ok(Some(_))) {
            let mut state = room.lock();
            state.end = Some(number + u64::from(job.is_err()));
            if let Err(panic) = job {
                state.results.insert(number, Err(PrefetchError::Panicked(message(&*panic))));
            }
            room.arrived.notify_all();
            return;
        }
        drop(jobs);
        if let Ok(Some(job)) = job {
            let result = match catch_unwind(AssertUnwindSafe(|| load(job))) {
                Ok(result) => result.map_err(PrefetchError::Load),
                Err(panic) => Err(PrefetchError::Panicked(message(&*panic))),
            };
            room.lock().results.insert(number, result);
            room.arrived.notify_all();
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicU64, AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use super::*;

    fn no_clock() -> f64 {
        0.0
    }

    #[test]
    fn results_keep_the_order_of_jobs() {
        // Earlier jobs of each group of four take longer.
        let load = |job: u64| {
            std::thread::sleep(Duration::from_millis(3 - job % 4));
            Ok::<_, ()>(job * 10)
        };
        let results: Vec<_> = Prefetch::new(0..40, 4, 8, no_clock, load).collect();
        assert_eq!(results, (0..40).map(|job| Ok(job * 10)).collect::<Vec<_>>());
    }

    #[test]
    fn no_jobs_end_at_once_and_stay_ended() {
        let mut prefetch = Prefetch::new(0..0, 2, 2, no_clock, Ok::<u64, ()>);
        assert_eq!(prefetch.next(), None);
        assert_eq!(prefetch.next(), None);
    }

    #[test]
    fn errors_and_panics_belong_to_their_job() {
        let load = |job: u64| match job {
            1 => Err("bad file"),
            2 => panic!("job {job} fell over"),
            _ => Ok(job),
        };
        let results: Vec<_> = Prefetch::new(0..4, 2, 2, no_clock, load).collect();
        assert_eq!(results[0], Ok(0));
        assert_eq!(results[1], Err(PrefetchError::Load("bad file")));
        assert_eq!(results[2], Err(PrefetchError::Panicked("job 2 fell over".into())));
        assert_eq!(results[3], Ok(3));
    }

    #[test]
    fn a_panic_of_the_jobs_ends_the_sequence() {
        let jobs = (0..9).inspect(|&job| assert!(job < 2, "no more"));
        let results: Vec<_> = Prefetch::new(jobs, 3, 4, no_clock, Ok::<i32, ()>).collect();
        assert_eq!(results, [Ok(0), Ok(1), Err(PrefetchError::Panicked("no more".into()))]);
    }

    #[test]
    fn no_more_than_the_bound_is_loaded_ahead() {
        let started = Arc::new(AtomicUsize::new(0));
        let counter = started.clone();
        let mut prefetch = Prefetch::new(0_usize.., 2, 3, no_clock, move |job| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok::<_, ()>(job)
        });
        for taken in 1..=20 {
            assert_eq!(prefetch.next(), Some(Ok(taken - 1)));
            assert!(started.load(Ordering::SeqCst) <= taken + 3);
        }
    }

    #[test]
    fn dropping_stops_an_endless_source() {
        let loads = Arc::new(());
        let held = loads.clone();
        let mut prefetch = Prefetch::new(0_u64.., 3, 5, no_clock, move |job| {
            let _held = &held;
            Ok::<_, ()>(job)
        });
        prefetch.next();
        drop(prefetch);
        // The threads are joined, so that the loader is gone.
        assert_eq!(Arc::strong_count(&loads), 1);
    }

    #[test]
    fn waiting_is_measured_by_the_clock_given() {
        // A clock that advances 2 s whenever it is read: each wait reads it twice.
        let ticks = Arc::new(AtomicU64::new(0));
        let clock = move || (ticks.fetch_add(1, Ordering::SeqCst) * 2) as f64;
        let gate = Arc::new(Barrier::new(2));
        let inner = gate.clone();
        let mut prefetch = Prefetch::new([()], 1, 1, clock, move |()| {
            inner.wait();
            Ok::<_, ()>(())
        });
        let opener = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            gate.wait();
        });
        assert_eq!(prefetch.next(), Some(Ok(())));
        opener.join().unwrap();
        assert_eq!((prefetch.wait_s(), prefetch.n_waits()), (2.0, 1));
    }
}
