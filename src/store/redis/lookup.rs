//! Finding a response.
//!
//! One round trip asks for all that a hit needs: what varies under the key, the response, and the
//! epochs. Which variant it will be, and which tags it carries, is known only afterwards, so both
//! are guessed by what was found last time. A wrong guess costs another round trip.

use std::sync::Arc;

use bytes::Bytes;
use redis::Pipeline;
use smallvec::SmallVec;

use super::connection::{Exchange, Replies, get};
use super::epochs::{self, Known};
use super::layout::{Digest, Place};
use super::memo::Memo;
use super::variants::Variants;
use crate::entry::StoredResponse;
use crate::epoch::{Captured, Scope, Stamp};
use crate::error::{Error, ErrorKind};
use crate::store::{Found, Outcome, Wanted};

/// What look-ups have taught this process.
#[derive(Debug)]
pub(super) struct Hints {
    /// What varies under a primary key, and the bytes that say so; by the key's digest.
    variants: Memo<(Bytes, Arc<Variants>)>,
    /// The tags of a response that its request does not determine, by the response's digest.
    tags: Memo<Tags>,
}

type Tags = SmallVec<[Scope; 2]>;

/// What stands under a name.
type Entry = Result<Option<Bytes>, Error>;

/// A look-up under way.
pub(super) struct Lookup<'a> {
    hints: &'a Hints,
    exchange: Exchange<'a>,
    wanted: Wanted<'a>,
    scopes: &'a [Scope],
    place: Place<'a>,
    known: Known,
}

impl Hints {
    /// A longer list of variants is not remembered.
    const MAX_LIST: usize = 2048;

    pub(super) fn new() -> Self {
        Self {
            variants: Memo::new(),
            tags: Memo::new(),
        }
    }
}

impl<'a> Lookup<'a> {
    pub(super) fn new(
        hints: &'a Hints,
        exchange: Exchange<'a>,
        wanted: Wanted<'a>,
        scopes: &'a [Scope],
    ) -> Self {
        Self {
            hints,
            exchange,
            wanted,
            scopes,
            place: Place::of(wanted.namespace, wanted.key, scopes.iter().copied()),
            known: Known::new(),
        }
    }

    /// Finds the wanted response, and the epochs of the scopes as they are from `moment` on.
    pub(super) async fn run(mut self, moment: u64) -> Result<Found, Error> {
        let outcome = self.outcome().await?;
        let epochs = self
            .scopes
            .iter()
            .map(|scope| Some((*scope, self.known.get(*scope)?)));
        Ok(Found {
            outcome,
            captured: epochs
                .collect::<Option<Stamp>>()
                .map(|stamp| Captured { stamp, moment }),
        })
    }

    async fn outcome(&mut self) -> Result<Outcome, Error> {
        let (guess, mut entry, variants) = self.guess().await?;
        let mut digest = self.wanted_digest(variants.as_deref());
        if digest != guess {
            entry = self.fetch(digest).await;
        }
        let only_others = variants.filter(|_| digest == self.place.primary());
        if let (Ok(None), Some(others)) = (&entry, &only_others)
            && let Some(variant) = others.next_best(self.wanted.fields)
        {
            digest = self.place.digest(variant);
            entry = self.fetch(digest).await;
        }
        match entry {
            Ok(Some(entry)) => self.judge(digest, &entry).await,
            Ok(None) if only_others.is_some() => Ok(Outcome::OtherVariants(Vec::new())),
            Ok(None) => Ok(Outcome::Absent),
            Err(error) if error.kind() == ErrorKind::Damaged => Ok(self.discard(digest).await),
            Err(error) => Err(error),
        }
    }

    /// Asks for everything, taking the variant for that of the last time.
    ///
    /// Returns which one it asked for, what is there, and what varies under the key in truth.
    async fn guess(&mut self) -> Result<(Digest, Entry, Option<Arc<Variants>>), Error> {
        let hint = self.hints.variants.recall(&self.place.primary());
        let guess = self.wanted_digest(hint.as_ref().map(|(_, variants)| &**variants));
        let mut commands = Pipeline::with_capacity(self.scopes.len().saturating_add(2));
        commands.add_command(get(&self.place.variants()));
        epochs::ask(&mut commands, self.wanted.namespace, self.scopes);
        let tags = self.ask(&mut commands, guess);
        let mut replies = self.exchange.send(&commands).await?;
        let variants = self.listed(replies.bytes(), hint)?;
        self.known.read(&mut replies, self.scopes)?;
        Ok((guess, self.take(&mut replies, &tags), variants))
    }

    /// Returns the digest of the response that the request selects.
    fn wanted_digest(&self, variants: Option<&Variants>) -> Digest {
        match variants.and_then(|variants| variants.matching(self.wanted.fields)) {
            Some(variant) => self.place.digest(variant),
            None => self.place.primary(),
        }
    }

    /// Returns what varies under the key, as the server says.
    fn listed(
        &self,
        reply: Entry,
        hint: Option<(Bytes, Arc<Variants>)>,
    ) -> Result<Option<Arc<Variants>>, Error> {
        let bytes = match reply {
            Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
            reply => reply.ok().flatten(),
        };
        let known = match (&bytes, hint) {
            (Some(bytes), Some((same, variants))) if *bytes == same => return Ok(Some(variants)),
            // What is no list is replaced by the next one.
            (Some(bytes), _) => Variants::decode(bytes).map(Arc::new),
            (None, None) => return Ok(None),
            (None, Some(_)) => None,
        };
        let hint = bytes
            .filter(|bytes| bytes.len() <= Hints::MAX_LIST)
            .zip(known.clone());
        self.hints.variants.note(&self.place.primary(), hint);
        Ok(known)
    }

    /// Asks for a response and for the tags that it had last time, which are returned.
    fn ask(&self, commands: &mut Pipeline, digest: Digest) -> Tags {
        let tags = self.hints.tags.recall(&digest).unwrap_or_default();
        commands.add_command(get(&self.place.entry(digest)));
        epochs::ask(commands, self.wanted.namespace, &tags);
        tags
    }

    fn take(&mut self, replies: &mut Replies, tags: &[Scope]) -> Entry {
        let entry = replies.bytes();
        self.known.read(replies, tags)?;
        entry
    }

    async fn fetch(&mut self, digest: Digest) -> Entry {
        let mut commands = Pipeline::new();
        let tags = self.ask(&mut commands, digest);
        let mut replies = self.exchange.send(&commands).await?;
        self.take(&mut replies, &tags)
    }

    /// Decides whether what was found may be returned.
    async fn judge(&mut self, digest: Digest, entry: &Bytes) -> Result<Outcome, Error> {
        let response = StoredResponse::decode(entry, self.wanted.key, self.wanted.clock);
        let Some(response) = response
            .ok()
            .filter(|r| self.place.digest(&r.variant) == digest)
        else {
            return Ok(self.discard(digest).await);
        };
        self.learn_tags(digest, response.stamp()).await?;
        Ok(
            match response.stamp().is_current(|scope| self.known.get(scope)) {
                true => Outcome::Response(Arc::new(response)),
                false => Outcome::Invalidated,
            },
        )
    }

    /// Asks for the epochs of the tags that were not guessed, and remembers all of them.
    async fn learn_tags(&mut self, digest: Digest, stamp: &Stamp) -> Result<(), Error> {
        let scopes = stamp.iter().map(|(scope, _)| scope);
        let tags: Tags = scopes
            .filter(|scope| !self.scopes.contains(scope))
            .collect();
        let unknown = tags.iter().filter(|tag| !self.known.contains(**tag));
        let unknown: Tags = unknown.copied().collect();
        let mut commands = Pipeline::new();
        epochs::ask(&mut commands, self.wanted.namespace, &unknown);
        let mut replies = self.exchange.send(&commands).await?;
        self.known.read(&mut replies, &unknown)?;
        if self.hints.tags.recall(&digest).unwrap_or_default() != tags {
            self.hints
                .tags
                .note(&digest, (!tags.is_empty()).then_some(tags));
        }
        Ok(())
    }

    /// Deletes what is no response of this key, so that the next one need not look at it.
    async fn discard(&mut self, digest: Digest) -> Outcome {
        let mut commands = Pipeline::new();
        commands.cmd("DEL").arg(self.place.entry(digest));
        // Without success the next one does it.
        let _ = self.exchange.send(&commands).await;
        Outcome::Damaged
    }
}
