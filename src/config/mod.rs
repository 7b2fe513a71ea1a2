//! Settings from the environment or a file: to a store, rules and a layer.

#[cfg(feature = "config")]
mod file;
mod parse;
mod reader;
mod store;

use std::fmt;
use std::time::Duration;

use self::reader::Reader;
use crate::error::Error;
use crate::key::Namespace;
use crate::middleware::CacheLayer;
use crate::rules::{Rules, units};
#[cfg(feature = "redis")]
use crate::store::Mirroring;
#[cfg(all(feature = "memory", feature = "redis"))]
use crate::store::WhenAway;

/// Writes the type, its table and what reads it from one list of settings, so that none of them can
/// lack one.
macro_rules! settings {
    ($(
        $(#[$condition:meta])?
        $name:ident: $type:ty = $parse:path, $meaning:literal, $default:literal;
    )+) => {
        /// How to run a cache: where it stores, how much, under which name.
        ///
        /// In a file these are the fields of a table `cache`. The variable of a field is its name
        /// in capitals after `CACHE_`, as in `CACHE_MAX_MEMORY`. Where `CACHE_URL` is not set,
        /// `REDIS_URL` counts; and `CACHE_RULES` is the path of a file with rules, in TOML, JSON or
        /// YAML (feature `config`).
        ///
        /// | field | meaning | default |
        /// |---|---|---|
        $(#[doc = concat!("| `", stringify!($name), "` | ", $meaning, " | ", $default, " |")])+
        ///
        /// Durations are written `250ms`, `5m`, `1h 30m`; sizes in bytes or as `512KiB`, `64MiB`,
        /// `1GiB`.
        ///
        /// # Examples
        ///
        /// ```
        /// # #[cfg(feature = "memory")]
        /// # async fn example() -> Result<(), tower_response_cache::Error> {
        /// use tower_response_cache::Settings;
        ///
        /// let cache = Settings::from_env()?.connect().await?;
        /// let handle = cache.handle();
        /// # Ok(())
        /// # }
        /// ```
        #[derive(Clone, Default)]
        #[cfg_attr(
            not(all(
                feature = "memory",
                feature = "redis",
                feature = "redis-tls",
                feature = "compression"
            )),
            expect(dead_code, reason = "what a missing feature needs is checked all the same")
        )]
        pub struct Settings {
            rules: Rules,
            $($(#[$condition])? $name: Option<$type>,)+
        }

        impl Settings {
            #[cfg(feature = "config")]
            const FIELDS: &[&str] = &[$($(#[$condition])? stringify!($name)),+];

            fn read(reader: &mut Reader<'_>) -> Self {
                Self {
                    rules: Rules::default(),
                    $($(#[$condition])? $name: reader.take(stringify!($name), $parse),)+
                }
            }
        }
    };
}

settings! {
    url: String = parse::verbatim,
        "`memory`, what [`RedisStore::connect`](crate::RedisStore::connect) takes, such as \
         `redis://[user:password@]host[:port][/db]` or `redis+cluster://host[:port][,host..]`, or \
         with `tiered+` before it for memory over that Redis",
        "`memory`";
    enabled: bool = parse::switch,
        "`false` serves and stores nothing; writes still invalidate", "`true`";
    namespace: Namespace = parse::namespace,
        "keeps applications that share a store apart", "`default`";
    default_ttl: Duration = units::duration,
        "lifetime of responses without a rule that state none themselves",
        "none: they are not stored";
    max_body: u64 = units::size, "the longest body that is stored", "`1MiB`";
    max_fields: u64 = units::size, "the longest header section that is stored", "`64KiB`";
    hash_ahead: u64 = units::size,
        "up to this length a body at hand has its `ETag` in the first answer already", "`64KiB`";
    status_name: String = parse::cache_name,
        "how the cache calls itself in `Cache-Status`; `off` adds none",
        "`tower-response-cache`";
    store_wait: Duration = units::duration,
        "how long a request waits for the store before its handler is called, see \
         [`CacheLayer::store_wait`]",
        "`150ms`";
    invalidation_wait: Duration = units::duration,
        "how long the answer to a write waits for what it invalidates", "`1s`";
    collapse_wait: Duration = units::duration,
        "how long requests wait for the answer to another; `0s` for not at all", "`5s`";
    repeat_invalidations: Duration = units::duration,
        "invalidates once more after this time, for handlers that read from a database replica \
         that lags",
        "never";
    max_memory: u64 = units::size, "the most that is held in memory", "`64MiB`";
    memory_max_body: u64 = units::size,
        "longer bodies stay in Redis alone", "what memory takes, an eighth of it or 16 MiB";
    #[cfg(all(feature = "memory", feature = "redis"))]
    when_away: WhenAway = parse::when_away,
        "what memory over Redis does while Redis is away: `local-ttl 2s` keeps what handlers \
         answer for so long, `serve 1m` serves what it holds for so long, `bypass` does neither",
        "`local-ttl 2s`";
    #[cfg(feature = "redis")]
    mirroring: Mirroring = parse::mirroring,
        "how memory over Redis learns of invalidations: `tracking`, `poll 1s` every so often, \
         `off` to ask each time",
        "`tracking`";
    connect_timeout: Duration = parse::wait, "for connecting to Redis", "`500ms`";
    read_timeout: Duration = parse::wait,
        "for a look-up in Redis; then it is a miss", "`100ms`";
    capture_timeout: Duration = parse::wait,
        "for what is asked of Redis between a miss and the handler; then nothing is stored",
        "`50ms`";
    write_timeout: Duration = parse::wait,
        "for storing and invalidating in Redis", "`1s`";
    check_interval: Duration = parse::wait,
        "how often an idle Redis is asked whether it is there", "`5s`";
    breaker_threshold: u32 = parse::count,
        "after so many commands in a row without an answer Redis is not asked for a while", "`5`";
    breaker_pause: (Duration, Duration) = parse::pauses,
        "how long that is at first, and at last", "`500ms to 10s`";
    wait_replicas: (u32, Duration) = parse::quorum,
        "`1 within 100ms`: so many replicas have to know of an invalidation before it counts as \
         applied",
        "none";
    strict_tags: bool = parse::switch,
        "`true` stores the first response with a new tag of its own not yet, see \
         [`RedisStoreBuilder::strict_tags`](crate::RedisStoreBuilder::strict_tags)",
        "`false`";
    compress_above: u64 = parse::threshold,
        "bodies longer than this are compressed in Redis, where that pays (feature `compression`)",
        "none are";
    secret: String = parse::secret,
        "at least 16 random bytes: only what was stored with the same is believed, see \
         [`RedisStoreBuilder::secret`](crate::RedisStoreBuilder::secret)",
        "none: Redis is trusted";
    former_secret: String = parse::secret,
        "the secret before this one, with which nothing is stored any more", "none";
    sentinel_password: String = parse::verbatim, "for the Sentinels", "none";
    tls_roots: Vec<u8> = parse::pem,
        "a file in PEM with the authorities to be trusted (feature `redis-tls`)",
        "those of the system";
    tls_certificate: Vec<u8> = parse::pem,
        "a file in PEM with our own certificate and its chain, for a Redis that asks for it",
        "none";
    tls_key: Vec<u8> = parse::pem, "a file in PEM with the key to it", "none";
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    ///
    /// Names every variable that has a wrong value, the value, and what would be right.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| match std::env::var(name) {
            Ok(value) => Some(value),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(value)) => Some(value.to_string_lossy().into()),
        })
    }

    /// Reads a file: a table `cache` with the fields above, and beside it rules as
    /// [`Rules::from_toml`] describes them. The file's name ends in `.toml`, `.json`, `.yaml` or
    /// `.yml`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read; and names every mistake in it.
    #[cfg(feature = "config")]
    pub fn from_file(path: impl AsRef<std::path::Path>) -> Result<Self, Error> {
        file::read(path.as_ref())
    }

    /// Replaces the rules.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Connects to the store and makes the layer.
    ///
    /// A Redis that is away is no error: the application starts, requests go to the handlers, and
    /// the connection is made as soon as it can be.
    ///
    /// # Errors
    ///
    /// When the URL or another setting of Redis is wrong, or needs a feature that is not built in.
    pub async fn connect(self) -> Result<CacheLayer, Error> {
        let enabled = self.enabled.unwrap_or(true);
        let layer = self
            .store()
            .await?
            .rules(self.rules)
            .enabled(enabled)
            .default_ttl(self.default_ttl)
            .repeat_invalidations(self.repeat_invalidations)
            .with(self.namespace, CacheLayer::namespace)
            .with(self.max_body, CacheLayer::max_body)
            .with(self.max_fields.map(store::length), CacheLayer::max_fields)
            .with(self.hash_ahead, CacheLayer::hash_ahead)
            .with(self.status_name, |layer, name| match name.as_str() {
                "off" => layer.without_cache_status(),
                name => layer.cache_status(name),
            })
            .with(self.store_wait, CacheLayer::store_wait)
            .with(self.invalidation_wait, CacheLayer::invalidation_wait)
            .with(self.collapse_wait, CacheLayer::collapse_wait);
        tracing::info!(cache = ?layer, enabled, "response cache");
        Ok(layer)
    }
}

impl Settings {
    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        // Set to nothing, as compose files do, counts as not set.
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let mut reader = Reader::new(|field| {
            let name = format!("CACHE_{}", field.to_ascii_uppercase());
            let value = variable(&name)?;
            Some((name, value))
        });
        let mut settings = Self::read(&mut reader);
        if settings.url.is_none() {
            settings.url = variable("REDIS_URL");
        }
        #[cfg(feature = "config")]
        if let Some(rules) = reader.take("rules", file::rules) {
            settings.rules = rules;
        }
        #[cfg(not(feature = "config"))]
        reader.take("rules", |_| {
            Err::<(), _>("needs the feature `config`".to_owned())
        });
        reader.finish(settings)
    }
}

impl fmt::Debug for Settings {
    /// Leaves out the URL, which may hold a password, and the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("enabled", &self.enabled)
            .field("namespace", &self.namespace)
            .field("default_ttl", &self.default_ttl)
            .field("max_memory", &self.max_memory)
            .field("max_body", &self.max_body)
            .finish_non_exhaustive()
    }
}

/// A builder that keeps its default where a setting is not given.
trait With: Sized {
    fn with<T>(self, setting: Option<T>, set: impl FnOnce(Self, T) -> Self) -> Self {
        match setting {
            Some(value) => set(self, value),
            None => self,
        }
    }
}

impl<B> With for B {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::from_variables(|name| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn an_empty_environment_means_the_defaults() {
        let settings = read(&[("CACHE_URL", " "), ("CACHE_ENABLED", "")]).unwrap();
        assert_eq!(settings.enabled, None);
        assert_eq!(settings.url, None);
    }

    #[test]
    fn every_variable_is_read() {
        let settings = read(&[
            ("CACHE_URL", "redis://10.0.0.1:6380/2"),
            ("REDIS_URL", "redis://elsewhere"),
            ("CACHE_ENABLED", "off"),
            ("CACHE_NAMESPACE", "shop"),
            ("CACHE_DEFAULT_TTL", "5m"),
            ("CACHE_MAX_MEMORY", "1GiB"),
            ("CACHE_MAX_BODY", "2MiB"),
            ("CACHE_CONNECT_TIMEOUT", "1s"),
            ("CACHE_READ_TIMEOUT", "20ms"),
            ("CACHE_WRITE_TIMEOUT", "2s"),
            ("CACHE_SECRET", "of this very day"),
            ("CACHE_FORMER_SECRET", "of the day before"),
            ("CACHE_MAX_FIELDS", "16KiB"),
            ("CACHE_HASH_AHEAD", "1MiB"),
            ("CACHE_STATUS_NAME", "edge"),
            ("CACHE_STORE_WAIT", "80ms"),
            ("CACHE_INVALIDATION_WAIT", "3s"),
            ("CACHE_BREAKER_THRESHOLD", "9"),
            ("CACHE_BREAKER_PAUSE", "1s to 3s"),
            #[cfg(feature = "compression")]
            ("CACHE_COMPRESS_ABOVE", "4KiB"),
            ("CACHE_COLLAPSE_WAIT", "0s"),
            ("CACHE_REPEAT_INVALIDATIONS", "3s"),
            ("CACHE_MEMORY_MAX_BODY", "64KiB"),
            ("CACHE_WHEN_AWAY", "serve 1m"),
            ("CACHE_MIRRORING", "poll 2s"),
            ("CACHE_CAPTURE_TIMEOUT", "30ms"),
            ("CACHE_CHECK_INTERVAL", "10s"),
            ("CACHE_WAIT_REPLICAS", "1 within 100ms"),
            ("CACHE_STRICT_TAGS", "yes"),
            ("CACHE_SENTINEL_PASSWORD", "of the sentinels"),
            #[cfg(feature = "redis-tls")]
            ("CACHE_TLS_ROOTS", "Cargo.toml"),
        ])
        .unwrap();
        assert_eq!(settings.url.as_deref(), Some("redis://10.0.0.1:6380/2"));
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(settings.enabled, Some(false));
        assert_eq!(settings.namespace, Some("shop".parse().unwrap()));
        assert_eq!(settings.default_ttl, seconds(300));
        assert_eq!(settings.max_memory, Some(1 << 30));
        assert_eq!(settings.max_body, Some(2 << 20));
        assert_eq!(settings.connect_timeout, seconds(1));
        assert_eq!(settings.read_timeout, Some(Duration::from_millis(20)));
        assert_eq!(settings.write_timeout, seconds(2));
        assert_eq!(settings.secret.as_deref(), Some("of this very day"));
        assert_eq!(settings.former_secret.as_deref(), Some("of the day before"));
        assert_eq!(settings.max_fields, Some(16 << 10));
        assert_eq!(settings.hash_ahead, Some(1 << 20));
        assert_eq!(settings.status_name.as_deref(), Some("edge"));
        assert_eq!(settings.store_wait, Some(Duration::from_millis(80)));
        assert_eq!(settings.invalidation_wait, seconds(3));
        assert_eq!(settings.breaker_threshold, Some(9));
        let pauses = [1, 3].map(Duration::from_secs);
        assert_eq!(settings.breaker_pause, Some(pauses.into()));
        let compressed = cfg!(feature = "compression").then_some(4096);
        assert_eq!(settings.compress_above, compressed);
        assert_eq!(settings.collapse_wait, seconds(0));
        assert_eq!(settings.repeat_invalidations, seconds(3));
        assert_eq!(settings.memory_max_body, Some(64 << 10));
        #[cfg(all(feature = "memory", feature = "redis"))]
        assert_eq!(settings.when_away, seconds(60).map(WhenAway::Serve));
        #[cfg(feature = "redis")]
        assert_eq!(
            settings.mirroring,
            seconds(2).map(|max_staleness| Mirroring::Poll { max_staleness })
        );
        assert_eq!(settings.capture_timeout, Some(Duration::from_millis(30)));
        assert_eq!(settings.check_interval, seconds(10));
        assert_eq!(
            settings.wait_replicas,
            Some((1, Duration::from_millis(100)))
        );
        assert_eq!(settings.strict_tags, Some(true));
        assert_eq!(
            settings.sentinel_password.as_deref(),
            Some("of the sentinels")
        );
        assert_eq!(settings.tls_roots.is_some(), cfg!(feature = "redis-tls"));
    }

    #[test]
    fn redis_url_counts_where_cache_url_is_not_set() {
        let settings = read(&[("REDIS_URL", "redis://elsewhere")]).unwrap();
        assert_eq!(settings.url.as_deref(), Some("redis://elsewhere"));
    }

    #[test]
    fn all_wrong_values_are_named_with_what_would_be_right() {
        let error = read(&[
            ("CACHE_ENABLED", "maybe"),
            ("CACHE_DEFAULT_TTL", "5"),
            ("CACHE_MAX_MEMORY", "much"),
            ("CACHE_NAMESPACE", "a b"),
            ("CACHE_WAIT_REPLICAS", "2"),
            ("CACHE_STATUS_NAME", "\u{fc}ber"),
            ("CACHE_BREAKER_THRESHOLD", "0"),
            ("CACHE_BREAKER_PAUSE", "10s"),
            #[cfg(feature = "redis")]
            ("CACHE_READ_TIMEOUT", "5m"),
            #[cfg(feature = "redis")]
            ("CACHE_SECRET", "short"),
            #[cfg(feature = "redis")]
            ("CACHE_MIRRORING", "sometimes"),
            #[cfg(all(feature = "memory", feature = "redis"))]
            ("CACHE_WHEN_AWAY", "serve"),
            ("CACHE_TLS_ROOTS", "/no/such/file"),
        ])
        .unwrap_err();
        let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
        let wrong = [
            ("CACHE_ENABLED", "maybe", "`true`"),
            ("CACHE_DEFAULT_TTL", "5", "`5m`"),
            ("CACHE_MAX_MEMORY", "much", "`64MiB`"),
            ("CACHE_NAMESPACE", "a b", "."),
            ("CACHE_WAIT_REPLICAS", "2", "`1 within 100ms`"),
            ("CACHE_STATUS_NAME", "\u{fc}ber", "ASCII"),
            ("CACHE_BREAKER_THRESHOLD", "0", "`1`"),
            ("CACHE_BREAKER_PAUSE", "10s", "`500ms to 10s`"),
            #[cfg(feature = "redis")]
            ("CACHE_READ_TIMEOUT", "5m", "60s"),
            #[cfg(feature = "redis")]
            ("CACHE_SECRET", "", "16 bytes"),
            #[cfg(feature = "redis")]
            ("CACHE_MIRRORING", "sometimes", "`tracking`"),
            #[cfg(all(feature = "memory", feature = "redis"))]
            ("CACHE_WHEN_AWAY", "serve", "`serve 2s`"),
            #[cfg(feature = "redis-tls")]
            ("CACHE_TLS_ROOTS", "/no/such/file", "No such file"),
            #[cfg(not(feature = "redis-tls"))]
            ("CACHE_TLS_ROOTS", "", "`redis-tls`"),
        ];
        assert_eq!(lines.len(), wrong.len(), "{lines:#?}");
        for (name, value, hint) in wrong {
            let line = lines.iter().find(|line| line.starts_with(name)).unwrap();
            assert!(line.contains(value) && line.contains(hint), "{line}");
        }
    }

    #[cfg(feature = "redis")]
    #[tokio::test]
    async fn nothing_shows_passwords_and_secrets() {
        let settings = read(&[
            ("CACHE_URL", "redis://:hidden@127.0.0.1:1"),
            ("CACHE_FORMER_SECRET", "hidden, and at least 16 bytes"),
        ]);
        let settings = settings.unwrap();
        assert!(!format!("{settings:?}").contains("hidden"));
        let error = settings.connect().await.unwrap_err();
        assert!(error.to_string().starts_with("former_secret"), "{error}");
        assert!(!format!("{error:?}").contains("hidden"), "{error:?}");
    }

    #[cfg(all(feature = "memory", feature = "redis"))]
    #[tokio::test]
    async fn the_url_chooses_the_store() {
        for (url, tier) in [
            ("memory", "memory"),
            ("redis://127.0.0.1:1", "redis"),
            ("tiered+redis://127.0.0.1:1", "tiered"),
        ] {
            let settings = read(&[("CACHE_URL", url), ("CACHE_MAX_MEMORY", "1MiB")]).unwrap();
            let stats = settings.connect().await.unwrap().handle().stats();
            assert_eq!(stats.store.tier, tier);
            assert_eq!(
                stats.store.capacity,
                if tier == "redis" { 0 } else { 1 << 20 }
            );
        }
        for url in ["tiered+memory", "tiered+", "disk"] {
            let settings = read(&[("CACHE_URL", url)]).unwrap();
            let error = settings.connect().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
        }
    }

    #[cfg(feature = "config")]
    #[test]
    fn a_file_holds_settings_and_rules() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.toml");
        let text = r#"
            [cache]
            url = "memory"
            enabled = false
            max_body = 4096

            [[route]]
            path = "/products/{id}"
            ttl = "5m"
        "#;
        std::fs::write(&path, text).unwrap();
        let settings = Settings::from_file(&path).unwrap();
        assert_eq!(settings.max_body, Some(4096));
        assert_eq!(settings.enabled, Some(false));
        assert!(settings.rules.find("/products/1").is_some());
        let path = path.to_str().unwrap();
        let by_env = read(&[("CACHE_RULES", path)]).unwrap();
        assert!(by_env.rules.find("/products/1").is_some());
        assert!(
            by_env.enabled.is_none(),
            "CACHE_RULES takes only the rules from a file"
        );
    }

    #[cfg(all(feature = "config", feature = "memory", feature = "redis"))]
    #[test]
    fn the_readme_names_the_variable_of_every_field() {
        let readme = include_str!("../../README.md");
        for field in Settings::FIELDS {
            let variable = format!("| `CACHE_{}`", field.to_ascii_uppercase());
            assert!(readme.contains(&variable), "{variable}");
        }
    }

    #[cfg(all(feature = "memory", feature = "redis-tls"))]
    #[tokio::test]
    async fn a_certificate_without_its_key_is_refused() {
        let settings = read(&[
            ("CACHE_URL", "redis://127.0.0.1:1"),
            ("CACHE_TLS_CERTIFICATE", "Cargo.toml"),
        ]);
        let error = settings.unwrap().connect().await.unwrap_err();
        assert!(error.to_string().contains("tls_key"), "{error}");
    }

    #[cfg(feature = "config")]
    #[test]
    fn a_file_that_cannot_be_read_shows_nothing_of_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("a.toml", "[cache]\nsecret = \"hidden"),
            ("b.json", "{\"cache\": {\"secret\": \"hidden\""),
            ("c.yaml", "cache: {secret: hidden"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let error = Settings::from_file(&path).unwrap_err();
            assert!(error.to_string().contains("line"), "{error}");
            assert!(!format!("{error:?} {error}").contains("hidden"), "{error}");
        }
    }

    #[cfg(feature = "config")]
    #[test]
    fn a_file_with_unknown_fields_is_refused_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text, field) in [
            ("a.toml", "[cache]\nmax_memori = 1", "max_memori"),
            ("b.json", r#"{"rules": []}"#, "rules"),
            ("c.yaml", "cache:\n  ttl: 5m", "ttl"),
            ("d.ini", "", ".toml"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let error = Settings::from_file(&path).unwrap_err().to_string();
            assert!(error.contains(field) && error.contains(name), "{error}");
        }
    }
}
