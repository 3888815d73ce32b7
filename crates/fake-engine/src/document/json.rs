// SPDX-License-Identifier: MIT OR Apache-2.0
//! Documents in JSON.

use serde_json::{Map, Value};

use super::{Element, Kind};

pub(super) fn read(body: &[u8]) -> Result<Element, String> {
    match serde_json::from_slice(body) {
        Ok(value @ Value::Object(_)) => Ok(element("", value)),
        Ok(_) => Err("an object is expected".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn element(name: &str, value: Value) -> Element {
    match value {
        Value::Null => Element::object(name),
        Value::String(text) => Element::text(name, text),
        Value::Bool(_) | Value::Number(_) => Element::text(name, value),
        Value::Array(items) => Element::list(name, items.into_iter().map(|item| element(name, item))),
        Value::Object(members) => {
            let mut object = Element::object(name);
            for (name, value) in members {
                match value {
                    Value::Array(items) => {
                        object.members.extend(items.into_iter().map(|item| element(&name, item)));
                    }
                    value => object.members.push(element(&name, value)),
                }
            }
            object
        }
    }
}

pub(super) fn write(root: &Element) -> Vec<u8> {
    value(root).to_string().into_bytes()
}

fn value(element: &Element) -> Value {
    if element.kind == Kind::Text {
        return Value::String(element.text.clone());
    }
    let mut object = Map::new();
    for member in &element.members {
        let is_one_of_many = element.kind == Kind::List || member.name == "link";
        match object.get_mut(&member.name) {
            Some(Value::Array(items)) => items.push(value(member)),
            _ if is_one_of_many => {
                object.insert(member.name.clone(), Value::Array(vec![value(member)]));
            }
            _ => {
                object.insert(member.name.clone(), value(member));
            }
        }
    }
    Value::Object(object)
}
