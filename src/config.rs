//! Settings from the environment or a file: to a store, rules and a layer.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::key::Namespace;
use crate::middleware::CacheLayer;
use crate::rules::{Rules, units};
#[cfg(feature = "memory")]
use crate::store::MemoryStore;
#[cfg(all(feature = "memory", feature = "redis"))]
use crate::store::TieredStore;
#[cfg(feature = "redis")]
use crate::store::{RedisStore, RedisStoreBuilder};

/// How to run a cache: where it stores, how much, under which name.
///
/// | variable | field in a file | meaning | default |
/// |---|---|---|---|
/// | `CACHE_URL`, else `REDIS_URL` | `url` | `memory`, what [`RedisStore::connect`](crate::RedisStore::connect) takes, such as `redis://[user:password@]host[:port][/db]` or `redis+cluster://host[:port][,host..]`, or with `tiered+` before it for memory over that Redis | `memory` |
/// | `CACHE_ENABLED` | `enabled` | `false` lets every request pass through | `true` |
/// | `CACHE_NAMESPACE` | `namespace` | keeps applications that share a store apart | `default` |
/// | `CACHE_DEFAULT_TTL` | `default_ttl` | lifetime of responses without a rule that state none themselves | none: they are not stored |
/// | `CACHE_MAX_MEMORY` | `max_memory` | the most that is held in memory | `64MiB` |
/// | `CACHE_MAX_BODY` | `max_body` | the longest body that is stored | `1MiB` |
/// | `CACHE_CONNECT_TIMEOUT` | `connect_timeout` | for connecting to Redis | `500ms` |
/// | `CACHE_READ_TIMEOUT` | `read_timeout` | for a look-up in Redis; then it is a miss | `100ms` |
/// | `CACHE_WRITE_TIMEOUT` | `write_timeout` | for storing and invalidating in Redis | `1s` |
/// | `CACHE_SECRET` | `secret` | at least 16 random bytes: only what was stored with the same is believed, see [`RedisStoreBuilder::secret`](crate::RedisStoreBuilder::secret) | none: Redis is trusted |
/// | `CACHE_FORMER_SECRET` | `former_secret` | the secret before this one, with which nothing is stored any more | none |
/// | `CACHE_COMPRESS_ABOVE` | `compress_above` | bodies longer than this are compressed in Redis, where that pays (feature `compression`) | none are |
/// | `CACHE_RULES` | the file itself | a file with rules, in TOML, JSON or YAML (feature `config`) | no rules |
///
/// Durations are written `250ms`, `5m`, `1h 30m`; sizes in bytes or as `512KiB`, `64MiB`, `1GiB`.
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
#[derive(Clone)]
pub struct Settings {
    url: Option<String>,
    enabled: bool,
    namespace: Namespace,
    default_ttl: Option<Duration>,
    max_memory: u64,
    max_body: Option<u64>,
    connect_timeout: Option<Duration>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    secret: Option<String>,
    former_secret: Option<String>,
    compress_above: Option<u64>,
    rules: Rules,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: None,
            enabled: true,
            namespace: Namespace::default(),
            default_ttl: None,
            max_memory: 64 << 20,
            max_body: None,
            connect_timeout: None,
            read_timeout: None,
            write_timeout: None,
            secret: None,
            former_secret: None,
            compress_above: None,
            rules: Rules::default(),
        }
    }
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
    /// When the URL is wrong, or needs a feature that is not built in.
    pub async fn connect(self) -> Result<CacheLayer, Error> {
        let layer = self
            .store()
            .await?
            .rules(self.rules)
            .namespace(self.namespace);
        let layer = layer.enabled(self.enabled).default_ttl(self.default_ttl);
        let layer = match self.max_body {
            Some(bytes) => layer.max_body(bytes),
            None => layer,
        };
        tracing::info!(cache = ?layer, enabled = self.enabled, "response cache");
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

    fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        Self {
            url: reader.take("url", verbatim),
            enabled: reader.take("enabled", switch).unwrap_or(default.enabled),
            namespace: reader
                .take("namespace", namespace)
                .unwrap_or(default.namespace),
            default_ttl: reader.take("default_ttl", units::duration),
            max_memory: reader
                .take("max_memory", units::size)
                .unwrap_or(default.max_memory),
            max_body: reader.take("max_body", units::size),
            connect_timeout: reader.take("connect_timeout", units::duration),
            read_timeout: reader.take("read_timeout", units::duration),
            write_timeout: reader.take("write_timeout", units::duration),
            secret: reader.take("secret", verbatim),
            former_secret: reader.take("former_secret", verbatim),
            compress_above: reader.take("compress_above", threshold),
            rules: default.rules,
        }
    }

    async fn store(&self) -> Result<CacheLayer, Error> {
        match self.url.as_deref() {
            None | Some("memory") => self.memory(),
            Some(url) => match url.strip_prefix("tiered+") {
                Some(second) => self.tiered(second).await,
                None => self.redis(url).await,
            },
        }
    }

    #[cfg(feature = "memory")]
    fn memory(&self) -> Result<CacheLayer, Error> {
        Ok(CacheLayer::new(MemoryStore::new(self.max_memory)))
    }

    #[cfg(not(feature = "memory"))]
    fn memory(&self) -> Result<CacheLayer, Error> {
        Err(not_built_in("memory"))
    }

    #[cfg(feature = "redis")]
    async fn redis(&self, url: &str) -> Result<CacheLayer, Error> {
        Ok(CacheLayer::new(self.connect_redis(url).await?))
    }

    #[cfg(not(feature = "redis"))]
    async fn redis(&self, _url: &str) -> Result<CacheLayer, Error> {
        Err(not_built_in("redis"))
    }

    #[cfg(all(feature = "memory", feature = "redis"))]
    async fn tiered(&self, url: &str) -> Result<CacheLayer, Error> {
        let memory = MemoryStore::new(self.max_memory);
        let redis = self.connect_redis(url).await?;
        Ok(CacheLayer::new(TieredStore::new(memory, redis)))
    }

    #[cfg(not(all(feature = "memory", feature = "redis")))]
    async fn tiered(&self, url: &str) -> Result<CacheLayer, Error> {
        // One of the two says that it is not built in.
        self.memory().map(drop)?;
        self.redis(url).await
    }

    #[cfg(feature = "redis")]
    async fn connect_redis(&self, url: &str) -> Result<RedisStore, Error> {
        let mut builder = RedisStore::builder(url);
        if let Some(limit) = self.connect_timeout {
            builder = builder.connect_timeout(limit);
        }
        if let Some(limit) = self.read_timeout {
            builder = builder.read_timeout(limit);
        }
        if let Some(limit) = self.write_timeout {
            builder = builder.write_timeout(limit);
        }
        if let Some(secret) = &self.secret {
            builder = builder.secret(secret);
        }
        if let Some(secret) = &self.former_secret {
            builder = builder.former_secret(secret);
        }
        if let Some(bytes) = self.max_body {
            let entry = usize::try_from(bytes).unwrap_or(usize::MAX);
            builder = builder.max_entry_size(entry.saturating_add(Self::ROOM_FOR_FIELDS));
        }
        builder = self.compressing(builder);
        match builder.clone().connect().await {
            Err(error) if error.kind() != ErrorKind::Invalid => {
                tracing::warn!(%error, "starting without the store");
                builder.connect_lazily()
            }
            connected => connected,
        }
    }

    #[cfg(feature = "compression")]
    fn compressing(&self, builder: RedisStoreBuilder) -> RedisStoreBuilder {
        match self.compress_above.map(usize::try_from) {
            Some(Ok(bytes)) => builder.compress_above(bytes),
            // No body is longer than memory is wide.
            Some(Err(_)) | None => builder,
        }
    }

    #[cfg(all(feature = "redis", not(feature = "compression")))]
    fn compressing(&self, builder: RedisStoreBuilder) -> RedisStoreBuilder {
        builder
    }

    /// What a stored response takes beside its body.
    #[cfg(feature = "redis")]
    const ROOM_FOR_FIELDS: usize = 128 << 10;
}

impl fmt::Debug for Settings {
    /// Leaves the URL out, which may hold a password, and the secrets.
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

/// Finds a setting by its name in a file; returns its name where it was found, and its value.
type Find<'a> = Box<dyn Fn(&str) -> Option<(String, String)> + 'a>;

/// Reads settings one by one and collects what is wrong with them.
struct Reader<'a> {
    find: Find<'a>,
    mistakes: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(find: impl Fn(&str) -> Option<(String, String)> + 'a) -> Self {
        Self {
            find: Box::new(find),
            mistakes: Vec::new(),
        }
    }

    fn take<T>(&mut self, field: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (name, value) = (self.find)(field)?;
        match parse(value.trim()) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.mistakes.push(format!("{name}: {problem}"));
                None
            }
        }
    }

    fn finish<T>(self, settings: T) -> Result<T, Error> {
        match self.mistakes.is_empty() {
            true => Ok(settings),
            false => Err(Error::new(ErrorKind::Invalid, self.mistakes.join("\n"))),
        }
    }
}

fn verbatim(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// From what size on bodies are compressed, where they can be.
fn threshold(text: &str) -> Result<u64, String> {
    match cfg!(feature = "compression") {
        true => units::size(text),
        false => Err("needs the feature `compression`".to_owned()),
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is neither `true` nor `false`")),
    }
}

fn namespace(text: &str) -> Result<Namespace, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

#[cfg(not(all(feature = "memory", feature = "redis")))]
fn not_built_in(feature: &str) -> Error {
    let message = format!("this store needs the feature `{feature}`, which is not built in");
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(feature = "config")]
mod file {
    use std::path::Path;

    use serde_json::{Map, Value};

    use super::{Reader, Settings};
    use crate::error::{Error, ErrorKind};
    use crate::rules::Rules;

    const FIELDS: [&str; 12] = [
        "url",
        "enabled",
        "namespace",
        "default_ttl",
        "max_memory",
        "max_body",
        "connect_timeout",
        "read_timeout",
        "write_timeout",
        "secret",
        "former_secret",
        "compress_above",
    ];

    pub(super) fn read(path: &Path) -> Result<Settings, Error> {
        let invalid = |message: String| {
            Error::new(ErrorKind::Invalid, format!("{}: {message}", path.display()))
        };
        let mut document = load(path).map_err(invalid)?;
        let cache = match document.remove("cache") {
            None => Map::new(),
            Some(Value::Object(cache)) => cache,
            Some(_) => return Err(invalid("`cache` is no table".to_owned())),
        };
        let mut reader = Reader::new(|field| {
            let value = match cache.get(field)? {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            Some((format!("cache.{field}"), value))
        });
        let unknown = cache
            .keys()
            .filter(|field| !FIELDS.contains(&field.as_str()));
        reader.mistakes.extend(unknown.map(|field| {
            format!(
                "cache.{field}: there is no such field, but {}",
                FIELDS.join(", ")
            )
        }));
        let settings = Settings::read(&mut reader);
        match rules_in(document) {
            Ok(rules) => reader.finish(settings.rules(rules)),
            Err(problem) => {
                reader.mistakes.push(problem);
                reader.finish(settings)
            }
        }
        .map_err(|error| invalid(error.to_string()))
    }

    /// Reads the rules in a file; a table `cache` in it is left alone.
    pub(super) fn rules(path: &str) -> Result<Rules, String> {
        let mut document = load(Path::new(path)).map_err(|problem| format!("{path}: {problem}"))?;
        document.remove("cache");
        rules_in(document).map_err(|problem| format!("{path}: {problem}"))
    }

    fn rules_in(document: Map<String, Value>) -> Result<Rules, String> {
        serde_json::from_value(Value::Object(document)).map_err(|error| error.to_string())
    }

    fn load(path: &Path) -> Result<Map<String, Value>, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let extension = path.extension().and_then(std::ffi::OsStr::to_str);
        match extension {
            Some("toml") => toml::from_str(&text).map_err(|error| error.to_string()),
            Some("json") => serde_json::from_str(&text).map_err(|error| error.to_string()),
            Some("yaml" | "yml") => {
                serde_norway::from_str(&text).map_err(|error| error.to_string())
            }
            _ => {
                Err("the name of a file of settings ends in .toml, .json, .yaml or .yml".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::from_variables(|name| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn an_empty_environment_means_the_defaults() {
        let settings = read(&[("CACHE_URL", " "), ("CACHE_ENABLED", "")]).unwrap();
        assert!(settings.enabled);
        assert_eq!(settings.url, None);
        assert_eq!(settings.max_memory, 64 << 20);
        assert_eq!(settings.default_ttl, None);
        assert_eq!(settings.namespace.as_str(), "default");
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
            ("CACHE_SECRET", "of today"),
            ("CACHE_FORMER_SECRET", "of yesterday"),
            #[cfg(feature = "compression")]
            ("CACHE_COMPRESS_ABOVE", "4KiB"),
        ])
        .unwrap();
        assert_eq!(settings.url.as_deref(), Some("redis://10.0.0.1:6380/2"));
        assert!(!settings.enabled);
        assert_eq!(settings.namespace.as_str(), "shop");
        assert_eq!(settings.default_ttl, Some(Duration::from_secs(300)));
        assert_eq!(settings.max_memory, 1 << 30);
        assert_eq!(settings.max_body, Some(2 << 20));
        assert_eq!(settings.connect_timeout, Some(Duration::from_secs(1)));
        assert_eq!(settings.read_timeout, Some(Duration::from_millis(20)));
        assert_eq!(settings.write_timeout, Some(Duration::from_secs(2)));
        assert_eq!(settings.secret.as_deref(), Some("of today"));
        assert_eq!(settings.former_secret.as_deref(), Some("of yesterday"));
        let compressed = cfg!(feature = "compression").then_some(4096);
        assert_eq!(settings.compress_above, compressed);
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
        ])
        .unwrap_err();
        let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 4, "{lines:#?}");
        for (name, value, hint) in [
            ("CACHE_ENABLED", "maybe", "`true`"),
            ("CACHE_DEFAULT_TTL", "5", "`5m`"),
            ("CACHE_MAX_MEMORY", "much", "`64MiB`"),
            ("CACHE_NAMESPACE", "a b", "."),
        ] {
            let line = lines.iter().find(|line| line.starts_with(name)).unwrap();
            assert!(line.contains(value) && line.contains(hint), "{line}");
        }
    }

    #[cfg(feature = "redis")]
    #[tokio::test]
    async fn nothing_shows_passwords_and_secrets() {
        let settings = read(&[
            ("CACHE_URL", "redis://:hidden@127.0.0.1:1"),
            ("CACHE_SECRET", "hidden, and at least 16 bytes"),
            ("CACHE_FORMER_SECRET", "hidden"),
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
        assert!(!settings.enabled);
        assert!(settings.rules.find("/products/1").is_some());
        let path = path.to_str().unwrap();
        let by_env = read(&[("CACHE_RULES", path)]).unwrap();
        assert!(by_env.rules.find("/products/1").is_some());
        assert!(
            by_env.enabled,
            "CACHE_RULES takes only the rules from a file"
        );
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
