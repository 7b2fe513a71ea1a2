//! Finding a response.
//!
//! One command reads all that a hit needs: what varies under the key, the response, and the epochs.
//! Which variant it will be, and which tags it carries, is known only afterwards, so both are guessed
//! by what was found last time. A wrong guess costs another round trip.
//!
//! In which order names are read does not matter, be it by one `MGET` (which one server answers as
//! of one moment) or by several. An invalidation that was acknowledged before the look-up began has
//! deleted its epoch before any of them is read, and an epoch never comes back: whichever value is
//! read later, it differs from that in the stamp of what was stored before. So what is returned was
//! current at some moment of the look-up.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use redis::Pipeline;
use smallvec::SmallVec;

use super::connection::{Exchange, Names};
use super::epochs::{self, Known};
use super::layout::{Digest, Place};
use super::memo::Memo;
use super::variants::Variants;
use crate::entry::{StoredResponse, Variant};
use crate::epoch::{Captured, Scope, Stamp};
use crate::error::Error;
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

/// What stands under a response's name.
type Entry = Option<Bytes>;

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

    /// Returns the variant that the answer to a request will be, as far as is known what varies.
    pub(super) fn expected_variant(
        &self,
        place: &Place<'_>,
        fields: &HeaderMap,
    ) -> Option<Variant> {
        let (_, variants) = self.variants.recall(&place.primary())?;
        variants.expected(fields)
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
            entry = self.fetch(digest).await?;
        }
        let only_others = variants.filter(|_| digest == self.place.primary());
        if let (None, Some(others)) = (&entry, &only_others)
            && let Some(variant) = others.next_best(self.wanted.fields)
        {
            digest = self.place.digest(variant);
            entry = self.fetch(digest).await?;
        }
        match (entry, only_others) {
            (Some(entry), _) => self.judge(digest, &entry).await,
            (None, Some(others)) => Ok(Outcome::OtherVariants(self.offers(&others).await?)),
            (None, None) => Ok(Outcome::Absent),
        }
    }

    /// Returns the other variants that the origin may be asked about, as far as one round trip
    /// shows that they are current.
    async fn offers(&mut self, others: &Variants) -> Result<Vec<Arc<StoredResponse>>, Error> {
        let digests = others.offers().map(|variant| self.place.digest(variant));
        let offers: SmallVec<[(Digest, Tags); 4]> = digests
            .map(|digest| (digest, self.remembered_tags(digest)))
            .collect();
        let mut names = Names::with_capacity(offers.len());
        for (digest, tags) in &offers {
            names.push(&self.place.entry(*digest));
            epochs::list(&mut names, self.wanted.namespace, tags);
        }
        let mut values = self.exchange.read(&names).await?;
        let mut found = Vec::new();
        for (digest, tags) in &offers {
            let entry = values.bytes()?;
            self.known.read(&mut values, tags)?;
            let response = entry.and_then(|entry| self.decode(*digest, &entry));
            found.extend(response.filter(|r| self.is_current(r)).map(Arc::new));
        }
        Ok(found)
    }

    /// Asks for everything, taking the variant for that of the last time.
    ///
    /// Returns which one it asked for, what is there, and what varies under the key in truth.
    async fn guess(&mut self) -> Result<(Digest, Entry, Option<Arc<Variants>>), Error> {
        let hint = self.hints.variants.recall(&self.place.primary());
        let guess = self.wanted_digest(hint.as_ref().map(|(_, variants)| &**variants));
        let tags = self.remembered_tags(guess);
        let count = self.scopes.len().saturating_add(tags.len());
        let mut names = Names::with_capacity(count.saturating_add(2));
        names.push(&self.place.variants());
        names.push(&self.place.entry(guess));
        epochs::list(&mut names, self.wanted.namespace, self.scopes);
        epochs::list(&mut names, self.wanted.namespace, &tags);
        let mut values = self.exchange.read(&names).await?;
        let variants = self.listed(values.bytes()?, hint);
        let entry = values.bytes()?;
        self.known.read(&mut values, self.scopes)?;
        self.known.read(&mut values, &tags)?;
        Ok((guess, entry, variants))
    }

    /// Returns the digest of the response that the request selects.
    fn wanted_digest(&self, variants: Option<&Variants>) -> Digest {
        match variants.and_then(|variants| variants.matching(self.wanted.fields)) {
            Some(variant) => self.place.digest(variant),
            None => self.place.primary(),
        }
    }

    /// Returns what varies under the key, as the server says.
    fn listed(&self, bytes: Entry, hint: Option<(Bytes, Arc<Variants>)>) -> Option<Arc<Variants>> {
        let known = match (&bytes, hint) {
            (Some(bytes), Some((same, variants))) if *bytes == same => return Some(variants),
            // What is no list is replaced by the next one.
            (Some(bytes), _) => Variants::decode(bytes).map(Arc::new),
            (None, None) => return None,
            (None, Some(_)) => None,
        };
        let hint = bytes
            .filter(|bytes| bytes.len() <= Hints::MAX_LIST)
            .zip(known.clone());
        self.hints.variants.note(&self.place.primary(), hint);
        known
    }

    /// Returns the tags that a response had last time.
    fn remembered_tags(&self, digest: Digest) -> Tags {
        self.hints.tags.recall(&digest).unwrap_or_default()
    }

    async fn fetch(&mut self, digest: Digest) -> Result<Entry, Error> {
        let tags = self.remembered_tags(digest);
        let mut names = Names::with_capacity(tags.len().saturating_add(1));
        names.push(&self.place.entry(digest));
        epochs::list(&mut names, self.wanted.namespace, &tags);
        let mut values = self.exchange.read(&names).await?;
        let entry = values.bytes()?;
        self.known.read(&mut values, &tags)?;
        Ok(entry)
    }

    /// Decides whether what was found may be returned.
    async fn judge(&mut self, digest: Digest, entry: &Bytes) -> Result<Outcome, Error> {
        let Some(response) = self.decode(digest, entry) else {
            return Ok(self.discard(digest).await);
        };
        self.learn_tags(digest, response.stamp()).await?;
        Ok(match self.is_current(&response) {
            true => Outcome::Response(Arc::new(response)),
            false => Outcome::Invalidated,
        })
    }

    /// Reads a response; `None` if it is not a whole one of this key and variant.
    fn decode(&self, digest: Digest, entry: &Bytes) -> Option<StoredResponse> {
        let response = StoredResponse::decode(entry, self.wanted.key, self.wanted.clock);
        let is_the_one = |r: &StoredResponse| self.place.digest(&r.variant) == digest;
        response.ok().filter(is_the_one)
    }

    fn is_current(&self, response: &StoredResponse) -> bool {
        response.stamp().is_current(|scope| self.known.get(scope))
    }

    /// Asks for the epochs of the tags that were not guessed, and remembers all of them.
    async fn learn_tags(&mut self, digest: Digest, stamp: &Stamp) -> Result<(), Error> {
        let scopes = stamp.iter().map(|(scope, _)| scope);
        let tags: Tags = scopes
            .filter(|scope| !self.scopes.contains(scope))
            .collect();
        let unknown = tags.iter().filter(|tag| !self.known.contains(**tag));
        let unknown: Tags = unknown.copied().collect();
        let mut names = Names::with_capacity(unknown.len());
        epochs::list(&mut names, self.wanted.namespace, &unknown);
        let mut values = self.exchange.read(&names).await?;
        self.known.read(&mut values, &unknown)?;
        if self.remembered_tags(digest) != tags {
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
