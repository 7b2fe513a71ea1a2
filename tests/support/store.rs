//! A store that fails, hangs and dawdles as a test tells it to.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::yield_now;
use tokio::time::sleep;
use tower_response_cache::store::{
    BoxFuture, Claim, Fill, FillLock, FillWait, Found, Kept, Settled, Usage, Wanted,
};
use tower_response_cache::{
    Captured, Error, ErrorKind, MemoryStore, Namespace, Scope, Stamp, StoredResponse, store::Store,
};

/// A memory store that every call waits for, and that captures along with a look-up unless it is
/// to fail at that. Clones are one store.
#[derive(Clone, Debug)]
pub(crate) struct Double(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: MemoryStore,
    faults: Mutex<Vec<(Operation, Fault)>>,
    /// Scopes that the part of it which keeps them does not take.
    lost: Mutex<Vec<(Scope, ErrorKind)>>,
    calls: Mutex<Vec<Operation>>,
    generation: AtomicU64,
    vouches: bool,
    /// For how long another process is to have each of the next claims, and those held here.
    elsewhere: Mutex<VecDeque<Duration>>,
    held: AtomicUsize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Lookup,
    Capture,
    Claim,
    Put,
    Invalidate,
    Remove,
}

impl Operation {
    pub(crate) const ALL: [Self; 6] = [
        Self::Lookup,
        Self::Capture,
        Self::Claim,
        Self::Put,
        Self::Invalidate,
        Self::Remove,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, having done nothing.
    Fails(ErrorKind),
    /// It is done, and the answer is lost.
    LosesAnswer,
    /// It is done, after so long.
    Takes(Duration),
    /// It never ends.
    Hangs,
}

impl Double {
    pub(crate) fn new() -> Self {
        Self::with(false)
    }

    /// Returns one that says unasked what is current.
    pub(crate) fn vouching() -> Self {
        Self::with(true)
    }

    fn with(vouches: bool) -> Self {
        Self(Arc::new(Inner {
            store: MemoryStore::new(16 << 20),
            faults: Mutex::default(),
            lost: Mutex::default(),
            calls: Mutex::default(),
            generation: AtomicU64::new(1),
            vouches,
            elsewhere: Mutex::default(),
            held: AtomicUsize::new(0),
        }))
    }

    /// Lets an operation go wrong from now on.
    pub(crate) fn break_down(&self, operation: Operation, fault: Fault) {
        self.0.faults.lock().push((operation, fault));
    }

    /// Lets the part of it that keeps a scope fail at forgetting it.
    pub(crate) fn lose(&self, scope: Scope, kind: ErrorKind) {
        self.0.lost.lock().push((scope, kind));
    }

    /// Lets everything go well from now on.
    pub(crate) fn recover(&self) {
        self.0.faults.lock().clear();
        self.0.lost.lock().clear();
    }

    /// Makes it uncertain whether what was invalidated still is, as a failover does.
    pub(crate) fn fail_over(&self) {
        self.0.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Has another process be the first, for a moment or longer, to claim what is claimed next.
    pub(crate) fn claim_elsewhere(&self, time: Duration) {
        self.0.elsewhere.lock().push_back(time);
    }

    /// Returns how many claims are held.
    pub(crate) fn claims(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Whether anybody else holds the store.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Returns how often an operation has begun.
    pub(crate) fn calls(&self, operation: Operation) -> usize {
        let calls = self.0.calls.lock();
        calls.iter().filter(|call| **call == operation).count()
    }

    /// Does an operation, which begins when it is first polled, after a wait, unless it goes wrong.
    async fn perform<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.0.calls.lock().push(operation);
        yield_now().await;
        match self.fault(operation) {
            None => {
                let done = work.await;
                yield_now().await;
                done
            }
            Some(Fault::Fails(kind)) => Err(Error::new(kind, "told to fail")),
            Some(Fault::LosesAnswer) => {
                work.await?;
                Err(Error::new(ErrorKind::Timeout, "told to lose the answer"))
            }
            Some(Fault::Takes(time)) => {
                sleep(time).await;
                work.await
            }
            Some(Fault::Hangs) => pending().await,
        }
    }

    fn claimed(&self) -> Claim {
        let elsewhere = self.0.elsewhere.lock().pop_front();
        if let Some(time) = elsewhere {
            return Claim::Elsewhere(FillWait::new(async move {
                yield_now().await;
                if !time.is_zero() {
                    sleep(time).await;
                }
                Settled::Released
            }));
        }
        self.0.held.fetch_add(1, Ordering::Relaxed);
        let double = self.clone();
        Claim::Granted(FillLock::new(move |_| {
            double.0.held.fetch_sub(1, Ordering::Relaxed);
        }))
    }

    fn fault(&self, operation: Operation) -> Option<Fault> {
        let faults = self.0.faults.lock();
        let fault = faults.iter().find(|(broken, _)| *broken == operation);
        fault.map(|(_, fault)| *fault)
    }
}

impl Store for Double {
    fn name(&self) -> &'static str {
        "double"
    }

    fn lookup<'a>(
        &'a self,
        wanted: Wanted<'a>,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<Found, Error>> {
        let captures = self.fault(Operation::Capture).is_none();
        let work = async move {
            let mut found = self.0.store.lookup(wanted, scopes).await?;
            found.captured = found.captured.filter(|_| captures);
            Ok(found)
        };
        Box::pin(self.perform(Operation::Lookup, work))
    }

    fn capture<'a>(
        &'a self,
        namespace: &'a Namespace,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<Captured, Error>> {
        let work = async { self.0.store.capture(namespace, scopes).await };
        Box::pin(self.perform(Operation::Capture, work))
    }

    fn claim<'a>(
        &'a self,
        wanted: Wanted<'a>,
        scopes: &'a [Scope],
        captured: Option<Captured>,
    ) -> BoxFuture<'a, Result<(Captured, Claim), Error>> {
        Box::pin(async move {
            let captured = match captured {
                Some(captured) => captured,
                None => self.capture(wanted.namespace, scopes).await?,
            };
            let work = async { Ok((captured, self.claimed())) };
            self.perform(Operation::Claim, work).await
        })
    }

    fn put<'a>(&'a self, fill: Fill) -> BoxFuture<'a, Result<Kept, Error>> {
        Box::pin(self.perform(Operation::Put, async { self.0.store.put(fill).await }))
    }

    fn invalidate<'a>(
        &'a self,
        namespace: &'a Namespace,
        scopes: &'a [Scope],
    ) -> BoxFuture<'a, Result<(), Error>> {
        let work = async {
            let lost = self.0.lost.lock().clone();
            if let Some((_, kind)) = lost.iter().find(|(scope, _)| scopes.contains(scope)) {
                return Err(Error::new(*kind, "told to fail in part"));
            }
            self.0.store.invalidate(namespace, scopes).await
        };
        Box::pin(self.perform(Operation::Invalidate, work))
    }

    fn remove<'a>(&'a self, response: &'a StoredResponse) -> BoxFuture<'a, Result<(), Error>> {
        let work = async { self.0.store.remove(response).await };
        Box::pin(self.perform(Operation::Remove, work))
    }

    fn vouches_for(&self, stamp: &Stamp) -> bool {
        self.0.vouches && self.0.store.vouches_for(stamp)
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Relaxed)
    }

    fn staleness(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn usage(&self) -> Usage {
        self.0.store.usage()
    }
}
