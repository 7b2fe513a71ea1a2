//! One server, and all connections to it.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use redis::Pipeline;

use crate::clock::Clock;
use crate::epoch::Scope;
use crate::error::{Error, ErrorKind};
use crate::key::Namespace;
use crate::store::StoreHealth;
use crate::store::redis::connection::{
    Address, Breaker, BreakerPolicy, Bulletin, Endpoint, Exchange, Lanes, Replies, Server,
};
use crate::store::redis::control::{Control, Mirror, Mirroring, Watch};
use crate::store::redis::epochs::Known;
use crate::store::redis::layout::{self, Name};
use crate::store::redis::replicas::{Quorum, Replicas};

/// What the connections to all servers of a store are made by.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) connect_timeout: Duration,
    pub(crate) check_interval: Duration,
    pub(crate) breaker: BreakerPolicy,
    pub(crate) mirroring: Mirroring,
    pub(crate) quorum: Option<Quorum>,
    pub(crate) clock: Clock,
    pub(crate) bulletin: Arc<Bulletin>,
}

/// Which of the connections to a server is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Short,
    /// For what is long, lest it holds up what is short.
    Long,
    /// For what replicas have to know of, where that is asked for.
    Sure,
}

/// A server of a store.
pub(crate) struct Shard {
    server: Arc<Server>,
    data: Lanes,
    /// Opened when it is first needed: by memory over this store, or by a wait for another process.
    control: OnceLock<Option<Control>>,
    mirroring: Mirroring,
    replicas: Option<Replicas>,
    /// The hash tag of a slot that it has, if it has any.
    tag: ArcSwapOption<String>,
}

impl Plan {
    pub(super) fn server(&self, address: Address) -> Arc<Server> {
        Arc::new(Server {
            address,
            connect_timeout: self.connect_timeout,
            check_interval: self.check_interval,
            breaker: Breaker::new(self.breaker),
            clock: self.clock.clone(),
            bulletin: Arc::clone(&self.bulletin),
            pulse: Default::default(),
            terms: Default::default(),
        })
    }
}

impl Shard {
    /// Connects to a server.
    ///
    /// # Errors
    ///
    /// When the server does not answer in time, or refuses.
    pub(super) async fn open(address: Address, plan: &Plan) -> Result<Self, Error> {
        let server = plan.server(address);
        let data = Lanes::open(Arc::clone(&server)).await?;
        let replicas = match plan.quorum {
            Some(quorum) => Some(Replicas::open(Arc::clone(&server), quorum).await?),
            None => None,
        };
        Ok(Self::new(server, data, replicas, plan))
    }

    /// Connects to a server in the background, trying until it succeeds.
    ///
    /// # Errors
    ///
    /// Outside a Tokio runtime.
    pub(super) fn open_lazily(address: Address, plan: &Plan) -> Result<Self, Error> {
        let server = plan.server(address);
        let data = Lanes::open_lazily(Arc::clone(&server))?;
        let replicas = plan
            .quorum
            .map(|quorum| Replicas::open_lazily(Arc::clone(&server), quorum));
        Ok(Self::new(server, data, replicas.transpose()?, plan))
    }

    fn new(server: Arc<Server>, data: Lanes, replicas: Option<Replicas>, plan: &Plan) -> Self {
        Self {
            server,
            data,
            control: OnceLock::new(),
            mirroring: plan.mirroring,
            replicas,
            tag: ArcSwapOption::empty(),
        }
    }

    /// Whether the server is at this address.
    pub(super) fn is_at(&self, endpoint: &Endpoint) -> bool {
        self.endpoint() == Some(endpoint)
    }

    /// Returns where the server is, unless that has to be found out.
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.server.address.fixed()
    }

    /// Takes the hash tag of a slot that the server has, if it has any.
    ///
    /// A name with this tag that nobody makes is deleted now and then, to see that the server still is
    /// the one to ask and takes writes. It would refuse to make one when it is out of memory.
    pub(super) fn set_tag(&self, tag: Option<String>) {
        let pulse = tag.as_deref().map(layout::pulse);
        let pulse = pulse.map(|name| Arc::new(redis::cmd("DEL").arg(name).take()));
        self.server.pulse.store(pulse);
        self.tag.store(tag.map(Arc::new));
    }

    /// Returns the hash tag of a slot that the server has, if it has any.
    pub(super) fn tag(&self) -> Option<Arc<String>> {
        self.tag.load_full()
    }

    /// Begins an exchange that has to end by `deadline`.
    ///
    /// # Errors
    ///
    /// While the connection is down, or the breaker open.
    pub(super) fn begin(&self, lane: Lane, deadline: Instant) -> Result<Exchange<'_>, Error> {
        match (lane, &self.replicas) {
            (Lane::Long, _) => self.data.begin_bulk(deadline),
            (Lane::Sure, Some(replicas)) => replicas.begin(deadline),
            (Lane::Short | Lane::Sure, _) => self.data.begin(deadline),
        }
    }

    /// Sends commands in one piece and waits for all replies, and until replicas know of them where
    /// that was asked for.
    ///
    /// # Errors
    ///
    /// When the server does not answer in time, or too few replicas do.
    pub(super) async fn tell(
        &self,
        exchange: &mut Exchange<'_>,
        lane: Lane,
        commands: &Pipeline,
    ) -> Result<Replies, Error> {
        let replies = exchange.send(commands).await?;
        match &self.replicas {
            Some(replicas) if lane == Lane::Sure => replicas.know(exchange).await?,
            _ => {}
        }
        Ok(replies)
    }

    /// Begins an exchange on the control connection that has to end by `deadline`.
    ///
    /// # Errors
    ///
    /// While that is down, or the breaker open, and where nothing is mirrored.
    pub(super) fn begin_control(&self, deadline: Instant) -> Result<Exchange<'_>, Error> {
        self.control()?.begin(deadline)
    }

    /// Reads epochs by such an exchange, and remembers them for as long as they may be believed.
    ///
    /// # Errors
    ///
    /// When the server does not answer in time, and where nothing is mirrored.
    pub(super) async fn load(
        &self,
        exchange: &mut Exchange<'_>,
        namespace: &Namespace,
        scopes: &[Scope],
    ) -> Result<Known, Error> {
        self.control()?.load(exchange, namespace, scopes).await
    }

    /// Reads a lock on the control connection, and returns with it what ends when something becomes
    /// of it.
    ///
    /// # Errors
    ///
    /// When the server cannot be asked, or not within `limit`, or does not tell.
    pub(super) async fn watch(
        &self,
        name: &Name,
        limit: Duration,
    ) -> Result<(Option<Bytes>, Watch), Error> {
        self.control()?.watch(name, limit).await
    }

    fn control(&self) -> Result<&Control, Error> {
        let open = || match self.mirroring {
            Mirroring::Off => None,
            mode => Control::open(Arc::clone(&self.server), mode).ok(),
        };
        let control = self.control.get_or_init(open).as_ref();
        control.ok_or_else(|| Error::new(ErrorKind::Unavailable, "redis is not to tell"))
    }

    /// Returns what is known of the server's epochs without asking, once something was loaded.
    pub(super) fn mirror(&self) -> Option<&Mirror> {
        self.control.get()?.as_ref().map(Control::mirror)
    }

    /// Makes sure that the server answers.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub(super) async fn check(&self, deadline: Instant) -> Result<(), Error> {
        let mut commands = Pipeline::with_capacity(1);
        commands.add_command(self.server.sign_of_life());
        let mut exchange = self.begin(Lane::Short, deadline)?;
        exchange.send(&commands).await?.all_done()
    }

    /// Notes that the server may have lost what it was told; returns the generation that begins.
    pub(super) fn lost(&self) -> u64 {
        self.server.bulletin.lost()
    }

    /// Notes that the server has not what it was asked for, nor anybody known.
    pub(super) fn strayed(&self) {
        self.server.bulletin.strayed();
    }

    /// Whether the server may be elsewhere the next time that it is looked for.
    pub(super) fn moves(&self) -> bool {
        self.server.address.moves()
    }

    pub(super) fn health(&self) -> StoreHealth {
        self.data.health()
    }

    /// Ends the connections for good, once the commands under way are answered or out of time.
    pub(super) async fn close(&self) {
        if let Some(Some(control)) = self.control.get() {
            control.close().await;
        }
        if let Some(replicas) = &self.replicas {
            replicas.close().await;
        }
        self.data.close().await;
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("data", &self.data)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}
