//! Requests for the same thing at the same time: one goes to the handler, the others get what it
//! brings.
//!
//! Only requests that show no identity of their own take part, and each gets an answer only if a
//! store that held it would have served it. Whatever is of no use to others sends all of them to
//! the handler, side by side, and the next ones too for a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Response, StatusCode};
use smallvec::SmallVec;

use super::decide::{self, Decision};
use super::fill;
use super::forward::concerns_requester;
use super::interim::Interims;
use super::respond::{self, Content, Held};
use super::{Engine, Forward, Step};
use crate::entry::StoredResponse;
use crate::epoch::{Scope, ScopeKind, Stamp};
use crate::flight::along::Along;
use crate::flight::{self, Boarded, Boarding, Limits, Why};
use crate::key::PrimaryKey;
use crate::reason::{Miss, Refusal};
use crate::rules::Lifetime;
use crate::semantics::cache_control::RequestDirectives;
use crate::semantics::vary::Nominated;
use crate::store::{FillLock, Store};

/// How long requests for what was of no use to others go to the handler at once.
const GROUNDED: Duration = Duration::from_secs(10);

pub(super) type Flights = flight::Flights<Wish, Circumstances, Landing>;
/// Gives those who wait what was brought.
type Leading = flight::Leader<Wish, Circumstances, Landing>;
/// A wait for what another request brings.
pub(crate) type Following = flight::Follower<Wish, Circumstances, Landing>;

/// What requests have in common that wait for each other: the key and, once a `Vary` has told them
/// apart, what they hold in the fields it nominates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wish {
    key: PrimaryKey,
    variant: Option<Nominated>,
}

/// What stood when the handler was asked. Only requests for which it still stands wait for the
/// answer: it may be older than what has been invalidated since.
#[derive(Debug)]
pub(crate) struct Circumstances {
    scopes: SmallVec<[Scope; 4]>,
    /// `None` if the store could not tell.
    stamp: Option<Stamp>,
    /// What is told of the request before its answer, if its client wants to hear that.
    interims: Option<Arc<Interims>>,
}

impl Circumstances {
    /// Whether nothing has been invalidated since others asked the handler, as far as can be told.
    ///
    /// Where the store could tell neither, what other processes have invalidated in the meantime is
    /// not known; a herd that comes while the store is away is the worse harm.
    fn may_join(&self, theirs: &Self, store: &dyn Store) -> bool {
        let stands = match (&self.stamp, &theirs.stamp) {
            (Some(mine), Some(theirs)) => mine == theirs || store.vouches_for(theirs),
            (None, None) => true,
            _ => false,
        };
        stands && self.scopes == theirs.scopes
    }
}

/// What one request brings for the others.
#[derive(Clone, Debug)]
pub(crate) enum Landing {
    /// A response, and its body if that is still arriving.
    Response(Arc<StoredResponse>, Option<Arc<Along>>),
    /// A response that the store has: it has tags that only it names, and the store alone knows
    /// whether they have been invalidated since a request came.
    Stored,
}

/// The duty to bring what others wait for, in this process and perhaps in all.
///
/// While it is held, others in this process may still have what was brought, and those in other
/// processes wait for it to be stored.
#[derive(Debug)]
pub(super) struct Lead {
    flight: Arc<Leading>,
    lock: FillLock,
}

impl Lead {
    fn new(flight: Leading) -> Self {
        Self {
            flight: Arc::new(flight),
            lock: FillLock::none(),
        }
    }

    /// Returns what is told of the request that goes to the handler.
    pub(super) fn interims(&self) -> Option<&Arc<Interims>> {
        self.flight.circumstances().interims.as_ref()
    }

    /// Keeps other processes from bringing it too.
    pub(super) fn hold(&mut self, lock: FillLock) {
        self.lock = lock;
    }

    /// Returns the flight, for who lands it while another has the duty.
    pub(super) fn flight(&self) -> Arc<Leading> {
        Arc::clone(&self.flight)
    }

    /// Gives those who wait what was brought, unless they have been told already.
    pub(super) fn land(&self, landing: Landing) {
        self.flight.land(landing);
    }

    /// Whether those who wait have been told.
    pub(super) fn has_ended(&self) -> bool {
        self.flight.has_ended()
    }

    /// Sends those who still wait to the handler; and those who come before `until`.
    fn ground(self, until: Option<Instant>) {
        self.flight.ground(until);
        if until.is_some() {
            self.lock.uncacheable();
        }
    }
}

/// Returns the limits of a cache whose requests wait so long for each other.
pub(super) fn limits(wait: Duration) -> Limits {
    Limits {
        flights: 16 * 1024,
        followers: 128 * 1024,
        wait,
        age: wait,
        grounded: 4096,
    }
}

impl Engine {
    /// Tells those who still wait that an answer is not for them, and for a while those who come
    /// after them, if it is for long.
    pub(super) fn ground(&self, lead: Option<Lead>, for_long: bool) {
        if let Some(lead) = lead {
            let until = for_long.then(|| self.options.clock.now() + GROUNDED);
            lead.ground(until);
        }
    }

    /// Lets nobody wait any more for what was asked of the handler before `scopes` were
    /// invalidated.
    ///
    /// Which tags a response will name is not known while it is under way.
    pub(super) fn part_ways(&self, scopes: &[Scope]) {
        let tags = scopes.iter().any(|scope| scope.kind() == ScopeKind::Tag);
        self.flights.retire(|_, circumstances| {
            tags || scopes
                .iter()
                .any(|scope| circumstances.scopes.contains(scope))
        });
    }
}

impl Forward {
    /// Waits for the answer to another request if there is one to wait for, else lets others wait
    /// for this one's.
    pub(super) fn collapse(mut self: Box<Self>, request: &HeaderMap) -> Step {
        if !self.may_collapse() {
            return self.depart();
        }
        match self.board() {
            Boarding::Follow(following) => {
                let circumstances = following.circumstances();
                self.listen(circumstances.and_then(|theirs| theirs.interims.as_ref()));
                return Step::Follow(self, following);
            }
            Boarding::Lead(flight) => {
                let lead = Lead::new(flight);
                // Another may have brought it between the look-up and now.
                if let Some(response) = self.exchange.look_again(request) {
                    lead.land(Landing::Stored);
                    return Step::Answer(response);
                }
                self.listen(lead.interims());
                self.lead = Some(lead);
            }
            Boarding::Alone(why) => tracing::trace!(?why, "not collapsed"),
        }
        self.depart()
    }

    /// Goes to the handler.
    fn depart(self: Box<Self>) -> Step {
        self.exchange
            .counters()
            .missed(self.why, &self.exchange.key);
        Step::Forward(self)
    }

    /// Lets others wait for this request's answer; returns whether another one does that already.
    pub(super) fn is_led_by_another(&mut self) -> bool {
        match self.board() {
            Boarding::Lead(flight) => self.lead = Some(Lead::new(flight)),
            Boarding::Follow(_) => return true,
            Boarding::Alone(why) => tracing::trace!(?why, "not collapsed"),
        }
        false
    }

    /// Waits for the answer to another request, and takes it if it will do.
    pub(crate) async fn follow(
        mut self: Box<Self>,
        following: Following,
        request: &HeaderMap,
    ) -> Step {
        let boarded = match self.stand_in(request) {
            None => following.await,
            Some(stand_in) => match stand_in.unless(following).await {
                Ok(boarded) => boarded,
                Err(stale) => return self.answer(stale),
            },
        };
        match boarded {
            Boarded::Landed(Landing::Response(stored, along)) => {
                if let Some(response) = self.share(&stored, along.as_ref(), request) {
                    self.exchange.counters().collapsed(&self.exchange.key);
                    return self.answer(response);
                }
                let names = stored.variant.vary.fields().unwrap_or_default();
                if self.exchange.variant.is_some() || names.is_empty() {
                    return self.go_alone();
                }
                // It is for others; those who want what this one wants may wait for each other.
                let form = stored.variant.form;
                self.exchange.variant = Some(Nominated::new(names, request, form));
            }
            // It may be stored by now, here or by another process.
            Boarded::Landed(Landing::Stored) | Boarded::Alone(Why::Late) => {
                self.exchange.alone = true;
            }
            Boarded::Lead(flight) => {
                self.lead = Some(Lead::new(flight));
                return self.depart();
            }
            Boarded::Alone(_) => return self.go_alone(),
        }
        Box::pin(self.exchange.resolve(request)).await
    }

    /// Goes to the handler after all.
    fn go_alone(mut self: Box<Self>) -> Step {
        self.collapsed = Some(false);
        self.listener = None;
        self.depart()
    }

    /// Answers a request that the store could not answer, and that need not go to the handler.
    fn answer(&self, response: Response<Content>) -> Step {
        self.exchange
            .counters()
            .missed(self.why, &self.exchange.key);
        Step::Answer(response)
    }

    /// Answers with what another request has brought, if a store could have.
    pub(super) fn share(
        &self,
        stored: &StoredResponse,
        along: Option<&Arc<Along>>,
        request: &HeaderMap,
    ) -> Option<Response<Content>> {
        let exchange = &self.exchange;
        let (engine, facts) = (&exchange.engine, &exchange.facts);
        if exchange.exact.is_some() && stored.key != exchange.key {
            // The queries are the same by a rule that this response does not state any more.
            return None;
        }
        StoredResponse::select(std::iter::once(stored), request)?;
        let age = stored.age(engine.options.clock.now());
        let decision = decide::on_stored(engine, stored, age, request, facts, exchange.policy());
        let Decision::Serve(_) = decision else {
            return None;
        };
        let mut response = respond::represent(engine, &mut Held::Shared(stored), request, facts);
        if let Some(along) = along
            && response.status() != StatusCode::NOT_MODIFIED
        {
            *response.body_mut() = Content::arriving(Box::pin(along.reader()?));
        }
        for name in &stored.terms.omitted {
            response.headers_mut().remove(name);
        }
        respond::state_age(response.headers_mut(), age);
        let mut handling = self.handling(None, false);
        handling.set_collapsed(true);
        let key = Some(&stored.key);
        engine.sign(response.headers_mut(), key, handling, None, self.detail());
        Some(response)
    }

    fn board(&self) -> Boarding<Wish, Circumstances, Landing> {
        let exchange = &self.exchange;
        let wish = Wish {
            key: exchange.key.clone(),
            variant: exchange.variant.clone(),
        };
        let circumstances = Circumstances {
            scopes: exchange.scopes.clone(),
            stamp: self
                .captured
                .as_ref()
                .map(|captured| captured.stamp.clone()),
            interims: exchange.on_interim.as_ref().map(|_| Arc::default()),
        };
        let engine = &exchange.engine;
        let suits = |mine: &Circumstances, theirs: &_| mine.may_join(theirs, &*engine.store);
        let now = engine.options.clock.now();
        // What grows stale while it arrives must not keep everybody from leading.
        let serves = |landing: &Landing| match landing {
            Landing::Response(stored, _) => fill::is_of_use(&stored.terms, stored.age(now)),
            Landing::Stored => true,
        };
        let flights = &engine.flights;
        flights.board(wish, circumstances, suits, serves, now)
    }

    /// Whether what the handler would say to this request could be for others, as far as the
    /// request tells.
    fn may_collapse(&self) -> bool {
        let exchange = &self.exchange;
        let facts = &exchange.facts;
        let shows_identity = facts.authorization || facts.cookie;
        // The handler may find that the client has what it wants, which tells others nothing.
        let own_condition = facts.conditional && self.nominated.is_empty() && !self.asks_for_all();
        exchange.policy().collapse
            && !exchange.alone
            && exchange.engine.options.collapse_wait > Duration::ZERO
            && exchange.engine.tasks.can_spawn()
            && !(shows_identity || own_condition || facts.head || facts.range)
            && facts.directives == RequestDirectives::default()
            && matches!(
                self.why,
                Miss::Absent
                    | Miss::Variant
                    | Miss::Stale
                    | Miss::Invalidated
                    | Miss::Damaged
                    | Miss::StoreUnavailable
                    | Miss::StoreTimeout
                    | Miss::StoreError
            )
    }

    /// Whether the handler is asked for a whole response, whatever the client has.
    pub(super) fn asks_for_all(&self) -> bool {
        let route = self.exchange.route.as_ref();
        self.captured.is_some()
            && !self.exchange.facts.head
            && route.is_some_and(|route| matches!(route.rule.lifetime, Lifetime::Ttl(_)))
    }

    /// Tells those who wait that this answer is not for them; one that only this request got says
    /// nothing of the next.
    pub(super) fn ground(&mut self, for_long: bool) {
        let lead = self.lead.take();
        self.exchange.engine.ground(lead, for_long);
    }

    /// Tells those who wait of an answer that is not stored.
    ///
    /// A handler that fails is asked once more, by one of them.
    pub(super) fn refuse_others(&mut self, status: StatusCode, refusal: Refusal) {
        match status.is_server_error() {
            true => self.lead = None,
            false => {
                let for_long = refusal != Refusal::StoreError && !concerns_requester(refusal);
                self.ground(for_long);
            }
        }
    }
}
