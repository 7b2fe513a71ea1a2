//! Finding a response.
//!
//! One command reads all that a hit needs: what varies under the key, the response, and the epochs
//! that are not mirrored. Which variant it will be, and which tags it carries, is known only
//! afterwards, so both are guessed by what was found last time. A wrong guess costs another round
//! trip.
//!
//! In which order names are read does not matter, be it by one `MGET` (which one server answers as
//! of one moment) or by several. An invalidation that was acknowledged before the look-up began has
//! deleted its epoch before any of them is read, and an epoch never comes back: whichever value is
//! read later, it differs from that in the stamp of what was stored before. So what is returned was
//! current at some moment of the look-up, as far as the mirror knew where it was asked.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use redis::Pipeline;
use smallvec::SmallVec;

use super::Shared;
use super::connection::{Lanes, Names};
use super::epochs::{self, Known};
use super::layout::{Digest, Place};
use super::memo::Memo;
use super::shards::{Dispatch, Lane};
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
    /// What else has to be known to read a response, by the response's digest.
    traits: Memo<Traits>,
}

/// What a response was like last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Traits {
    /// The tags that its request does not determine.
    pub(super) tags: Tags,
    pub(super) is_long: bool,
}

type Tags = SmallVec<[Scope; 2]>;
type Scopes = SmallVec<[Scope; 4]>;

/// What stands under a response's name.
type Entry = Option<Bytes>;

/// A look-up under way.
pub(super) struct Lookup<'a> {
    shared: &'a Shared,
    dispatch: Dispatch<'a>,
    wanted: Wanted<'a>,
    scopes: &'a [Scope],
    place: Place<'a>,
    guess: Guess,
    known: Known,
}

/// Which response it will be, and what varies under the key, going by the last time.
struct Guess {
    digest: Digest,
    variants: Option<(Bytes, Arc<Variants>)>,
    tags: Tags,
}

impl Hints {
    /// A longer list of variants is not remembered.
    const MAX_LIST: usize = 2048;

    pub(super) fn new() -> Self {
        Self {
            variants: Memo::new(),
            traits: Memo::new(),
        }
    }

    /// Remembers what a response is like.
    pub(super) fn note(&self, digest: &Digest, traits: Traits) {
        let is_special = traits != Traits::default();
        self.traits.note(digest, is_special.then_some(traits));
    }

    fn traits(&self, digest: &Digest) -> Traits {
        self.traits.recall(digest).unwrap_or_default()
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
    /// Begins a look-up, on the connection that suits what will be found.
    pub(super) fn begin(shared: &'a Shared, wanted: Wanted<'a>, scopes: &'a [Scope]) -> Self {
        let Shared {
            shards,
            hints,
            limits,
            ..
        } = shared;
        let place = Place::of(wanted.namespace, wanted.key, scopes.iter().copied());
        let variants = hints.variants.recall(&place.primary());
        let listed = variants.as_ref().map(|(_, variants)| &**variants);
        let digest = selected(&place, listed, wanted.fields);
        let Traits { tags, is_long } = hints.traits(&digest);
        let lane = if is_long { Lane::Long } else { Lane::Short };
        let dispatch = shards.begin(lane, limits.read);
        Self {
            shared,
            dispatch: dispatch.believing(wanted.namespace),
            wanted,
            scopes,
            place,
            guess: Guess {
                digest,
                variants,
                tags,
            },
            known: Known::new(),
        }
    }

    /// Finds the wanted response, and the epochs of the scopes as they are from `moment` on.
    pub(super) async fn run(&mut self, moment: u64) -> Result<Found, Error> {
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
            tier: None,
        })
    }

    async fn outcome(&mut self) -> Result<Outcome, Error> {
        let (mut entry, variants) = self.ask().await?;
        let mut digest = selected(&self.place, variants.as_deref(), self.wanted.fields);
        if digest != self.guess.digest {
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
            .map(|digest| (digest, self.shared.hints.traits(&digest).tags))
            .collect();
        let mut names = Names::with_capacity(offers.len());
        for (digest, tags) in &offers {
            names.push(&self.place.entry(*digest));
            epochs::list(&mut names, self.wanted.namespace, tags);
        }
        let mut values = self.dispatch.read(&names).await?;
        let mut found = Vec::new();
        for (digest, tags) in &offers {
            let entry = values.bytes()?;
            self.known.read(&mut values, tags)?;
            // On its own: one of them may be kept, and not the others with it.
            let entry = entry.map(|entry| Bytes::copy_from_slice(&entry));
            let response = entry.and_then(|entry| self.decode(*digest, &entry));
            found.extend(response.filter(|r| self.is_current(r)).map(Arc::new));
        }
        Ok(found)
    }

    /// Asks for everything, as if it were as guessed.
    ///
    /// Returns what is there, and what varies under the key in truth.
    async fn ask(&mut self) -> Result<(Entry, Option<Arc<Variants>>), Error> {
        let tags = std::mem::take(&mut self.guess.tags);
        let unknown = self.unknown(self.scopes.iter().chain(&tags));
        let mut names = Names::with_capacity(unknown.len().saturating_add(2));
        names.push(&self.place.variants());
        names.push(&self.place.entry(self.guess.digest));
        epochs::list(&mut names, self.wanted.namespace, &unknown);
        let mut values = self.dispatch.read(&names).await?;
        let variants = values.bytes()?;
        let entry = values.bytes()?;
        self.known.read(&mut values, &unknown)?;
        Ok((entry, self.listed(variants)))
    }

    /// Takes epochs over from the mirror, and returns the scopes of those that have to be asked for.
    fn unknown<'s>(&mut self, scopes: impl Iterator<Item = &'s Scope>) -> Scopes {
        let mut unknown = Scopes::new();
        for scope in scopes.copied() {
            match self.dispatch.mirrored(self.wanted.namespace, scope) {
                _ if self.known.contains(scope) => {}
                Some(epoch) => self.known.note(scope, epoch),
                None => unknown.push(scope),
            }
        }
        unknown
    }

    /// Returns what varies under the key, as the server says.
    fn listed(&mut self, bytes: Entry) -> Option<Arc<Variants>> {
        let guessed = self.guess.variants.take();
        if let (Some(bytes), Some((same, variants))) = (&bytes, &guessed)
            && bytes == same
        {
            return Some(Arc::clone(variants));
        }
        if bytes.is_none() && guessed.is_none() {
            return None;
        }
        // What is remembered is not to keep the reply, which has a body too.
        let bytes = bytes.map(|bytes| Bytes::copy_from_slice(&bytes));
        // What is no list is replaced by the next one.
        let known = bytes.as_ref();
        let known = known.and_then(|bytes| self.shared.decode_list(&self.place, bytes));
        let known = known.map(Arc::new);
        let hint = bytes
            .filter(|bytes| bytes.len() <= Hints::MAX_LIST)
            .zip(known.clone());
        self.shared.hints.variants.note(&self.place.primary(), hint);
        known
    }

    async fn fetch(&mut self, digest: Digest) -> Result<Entry, Error> {
        let Traits { tags, .. } = self.shared.hints.traits(&digest);
        let unknown = self.unknown(tags.iter());
        let mut names = Names::with_capacity(unknown.len().saturating_add(1));
        names.push(&self.place.entry(digest));
        epochs::list(&mut names, self.wanted.namespace, &unknown);
        let mut values = self.dispatch.read(&names).await?;
        let entry = values.bytes()?;
        self.known.read(&mut values, &unknown)?;
        Ok(entry)
    }

    /// Decides whether what was found may be returned.
    async fn judge(&mut self, digest: Digest, entry: &Bytes) -> Result<Outcome, Error> {
        let Some(response) = self.decode(digest, entry) else {
            return Ok(self.discard(digest).await);
        };
        let is_long = Lanes::is_long(entry.len());
        self.learn(digest, is_long, response.stamp()).await?;
        Ok(match self.is_current(&response) {
            true => Outcome::Response(Arc::new(response)),
            false => Outcome::Invalidated,
        })
    }

    /// Reads a response; `None` if it is not a whole one of this key and variant.
    fn decode(&self, digest: Digest, entry: &Bytes) -> Option<StoredResponse> {
        let name = || self.place.entry(digest);
        let Wanted { key, clock, .. } = self.wanted;
        let response = self.shared.decode(name, entry, key, clock);
        response.filter(|r| self.place.digest(&r.variant) == digest)
    }

    fn is_current(&self, response: &StoredResponse) -> bool {
        response.stamp().is_current(|scope| self.known.get(scope))
    }

    /// Asks for the epochs of the tags that were not guessed, and remembers what the response is
    /// like.
    async fn learn(&mut self, digest: Digest, is_long: bool, stamp: &Stamp) -> Result<(), Error> {
        let scopes = stamp.iter().map(|(scope, _)| scope);
        let tags: Tags = scopes
            .filter(|scope| !self.scopes.contains(scope))
            .collect();
        let unknown = self.unknown(tags.iter());
        if !unknown.is_empty() {
            let mut names = Names::with_capacity(unknown.len());
            epochs::list(&mut names, self.wanted.namespace, &unknown);
            let mut values = self.dispatch.read(&names).await?;
            self.known.read(&mut values, &unknown)?;
        }
        let traits = Traits { tags, is_long };
        if self.shared.hints.traits(&digest) != traits {
            self.shared.hints.note(&digest, traits);
        }
        Ok(())
    }

    /// Deletes what is no response of this key, so that the next one need not look at it.
    async fn discard(&mut self, digest: Digest) -> Outcome {
        let mut commands = Pipeline::new();
        commands.cmd("DEL").arg(self.place.entry(digest));
        // Without success the next one does it.
        let _ = self.dispatch.send(&commands).await;
        Outcome::Damaged
    }
}

/// Returns the digest of the response that a request selects.
fn selected(place: &Place<'_>, variants: Option<&Variants>, request: &HeaderMap) -> Digest {
    match variants.and_then(|variants| variants.matching(request)) {
        Some(variant) => place.digest(variant),
        None => place.primary(),
    }
}
