use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// The statuses whose rows are counted, by the names that reports have for them.
pub const STATUSES: [&str; 4] = ["completed", "failed", "pending", "processing"];

/// The rows of each status; in JSON a member for each, such as `failedGenerations`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusCounts(pub Vec<StatusCount>);

/// The rows of one status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusCount {
    pub name: String,
    pub count: i64,
}

/// What a member's name adds to the status.
const SUFFIX: &str = "Generations";

impl StatusCounts {
    /// The rows of a status; 0 if it is not counted.
    pub fn of(&self, name: &str) -> i64 {
        self.0.iter().find(|status| status.name == name).map_or(0, |status| status.count)
    }
}

impl Serialize for StatusCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|status| (format!("{}{SUFFIX}", status.name), status.count)))
    }
}

impl<'de> Deserialize<'de> for StatusCounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StatusCounts, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = StatusCounts;

    fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
        write!(to, "members such as failed{SUFFIX}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<StatusCounts, A::Error> {
        let mut counts = StatusCounts::default();
        while let Some(member) = members.next_key::<String>()? {
            match member.strip_suffix(SUFFIX) {
                Some(name) => counts.0.push(StatusCount { name: name.to_owned(), count: members.next_value()? }),
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(counts)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for StatusCounts {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        let object = utoipa::openapi::ObjectBuilder::new();
        let members = STATUSES.map(|name| format!("{name}{SUFFIX}"));
        let with = |object: utoipa::openapi::ObjectBuilder, member: &String| {
            object.property(member, i64::schema()).required(member)
        };
        members.iter().fold(object, with).into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for StatusCounts {}
