// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON as the engine writes it: each scalar is a string (`"sparse":"true"`), and a list is wrapped
//! (`{"disk":[…]}`). What is read here may as well be a scalar of JSON's own kind, or be missing.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A scalar of whatever kind, as text; nothing for what is no scalar.
fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Value::deserialize(deserializer).map(scalar)
}

/// A text, which is empty where there is none.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(read(deserializer)?.unwrap_or_default())
}

/// A number; nothing where there is none that can be understood.
pub(crate) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(read(deserializer)?.and_then(|text| text.trim().parse().ok()))
}

/// A truth value; nothing where there is none that can be understood.
pub(crate) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    Ok(read(deserializer)?.and_then(|text| text.trim().parse().ok()))
}

/// A list in its wrapping; empty where there is none. The wrapping has one member, whose name tells
/// nothing. A list of one may be that one by itself.
pub(crate) fn list<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    unwrap(value).map_err(serde::de::Error::custom)
}

/// The elements of a wrapped list.
pub(crate) fn unwrap<T: DeserializeOwned>(value: Value) -> serde_json::Result<Vec<T>> {
    let members: HashMap<String, Value> = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(elements) => return elements.into_iter().map(serde_json::from_value).collect(),
        other => serde_json::from_value(other)?,
    };
    let elements = members.into_values().find(|member| member.is_array() || member.is_object());
    match elements {
        Some(Value::Array(elements)) => elements.into_iter().map(serde_json::from_value).collect(),
        Some(element) => Ok(vec![serde_json::from_value(element)?]),
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Read {
        #[serde(default, deserialize_with = "text")]
        name: String,
        #[serde(default, deserialize_with = "number")]
        size: Option<u64>,
        #[serde(default, deserialize_with = "flag")]
        sparse: Option<bool>,
        #[serde(default, deserialize_with = "list")]
        domains: Vec<Named>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Named {
        id: String,
    }

    fn read(value: Value) -> Read {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn scalars_are_strings_or_of_their_own_kind() {
        let strings = read(json!({"name": "7", "size": "1024", "sparse": "true"}));
        let scalars = read(json!({"name": 7, "size": 1024, "sparse": true, "unknown": {"x": [1]}}));
        assert_eq!(strings, scalars);
        assert_eq!((&*strings.name, strings.size, strings.sparse), ("7", Some(1024), Some(true)));
    }

    #[test]
    fn what_is_missing_or_nonsense_is_nothing() {
        for value in [json!({}), json!({"name": null, "size": "much", "sparse": [1], "domains": null})] {
            assert_eq!(read(value), Read { name: String::new(), size: None, sparse: None, domains: vec![] });
        }
    }

    #[test]
    fn a_list_is_wrapped_or_not() {
        let one = || vec![Named { id: "a".into() }];
        for domains in [
            json!({"storage_domain": [{"id": "a"}]}),
            json!({"storage_domain": {"id": "a"}}),
            json!({"total": "1", "storage_domain": [{"id": "a"}]}),
            json!([{"id": "a"}]),
        ] {
            assert_eq!(read(json!({"domains": domains})).domains, one());
        }
        assert_eq!(read(json!({"domains": {}})).domains, vec![]);
        assert!(serde_json::from_value::<Read>(json!({"domains": {"x": [{"name": "a"}]}})).is_err());
    }
}
