// SPDX-License-Identifier: MIT OR Apache-2.0
//! The root of the API, and what an installation consists of: data centers, clusters, storage
//! domains, hosts, jobs, events.

use super::{Answer, Call, ROOT, disks, found, href, ok};
use crate::document::Element;
use crate::engine::Inner;
use crate::state::{Cluster, DataCenter, Event, Host, Job, Refusal, State, StorageDomain};

pub(super) fn answer(engine: &Inner, call: &Call, path: &[&str]) -> Option<Answer> {
    let state = &engine.state;
    if let ["storagedomains", domain, "disksnapshots", rest @ ..] = path {
        return disks::answer_snapshots(engine, call, domain, rest);
    }
    if call.method != "GET" {
        return None;
    }
    Some(match path {
        [] | [""] => ok(root()),
        ["datacenters"] => list_data_centers(state, call),
        ["datacenters", id] => {
            one(&state.data_centers, "data center", id, |known| &known.id, show_data_center)
        }
        ["datacenters", id, "storagedomains"] => {
            let domains = state.storage_domains.iter();
            let domains = domains.filter(|domain| domain.data_center.as_deref() == Some(id));
            ok(Element::list("storage_domains", domains.map(show_storage_domain)))
        }
        ["datacenters", id, "clusters"] => {
            let clusters = state.clusters.iter().filter(|cluster| cluster.data_center == *id);
            ok(Element::list("clusters", clusters.map(show_cluster)))
        }
        ["clusters"] => {
            list(&state.clusters, call, "clusters", |known| vec![("name", &known.name)], show_cluster)
        }
        ["clusters", id] => one(&state.clusters, "cluster", id, |known| &known.id, show_cluster),
        ["storagedomains"] => list_storage_domains(state, call),
        ["storagedomains", id] => state.storage_domain(id).and_then(|domain| ok(show_storage_domain(domain))),
        ["hosts"] => list_hosts(state, call),
        ["hosts", id] => one(&state.hosts, "host", id, |known| &known.id, show_host),
        ["jobs"] => {
            let properties = |job: &Job| vec![("correlation_id", job.correlation_id.clone())];
            list_by(&state.jobs, call, "jobs", properties, show_job)
        }
        ["events"] => {
            let properties = |event: &Event| {
                vec![("message", event.description.clone()), ("type", event.code.to_string())]
            };
            // The newest comes first.
            let newest: Vec<_> = state.events.iter().rev().cloned().collect();
            list_by(&newest, call, "events", properties, show_event)
        }
        _ => return None,
    })
}

fn one<T>(
    items: &[T],
    what: &str,
    id: &str,
    id_of: impl Fn(&T) -> &String,
    show: impl Fn(&T) -> Element,
) -> Answer {
    let found = items.iter().find(|item| id_of(item) == id);
    found.ok_or_else(|| Refusal::not_found(what, id)).and_then(|item| ok(show(item)))
}

fn list<T>(
    items: &[T],
    call: &Call,
    name: &str,
    properties: impl for<'t> Fn(&'t T) -> Vec<(&'static str, &'t str)>,
    show: impl Fn(&T) -> Element,
) -> Answer {
    ok(Element::list(name, found(items, call, properties)?.into_iter().map(show)))
}

/// Lists items by properties that have to be computed.
fn list_by<T>(
    items: &[T],
    call: &Call,
    name: &str,
    properties: impl Fn(&T) -> Vec<(&'static str, String)>,
    show: impl Fn(&T) -> Element,
) -> Answer {
    let with: Vec<_> = items.iter().map(|item| (properties(item), item)).collect();
    let found = found(&with, call, |(properties, _)| {
        properties.iter().map(|(key, value)| (*key, value.as_str())).collect()
    })?;
    ok(Element::list(name, found.into_iter().map(|(_, item)| show(item))))
}

fn root() -> Element {
    let version = Element::object("version")
        .with("build", 0)
        .with("full_version", "4.5.7-0.fake")
        .with("major", 4)
        .with("minor", 5)
        .with("revision", 7);
    let product =
        Element::object("product_info").with("name", "oVirt Engine").with("vendor", "ovirt.org").and(version);
    let lists = [
        "clusters",
        "datacenters",
        "disks",
        "events",
        "hosts",
        "imagetransfers",
        "jobs",
        "storagedomains",
        "vms",
    ];
    let root = Element::object("api").and(product);
    lists.iter().fold(root, |root, name| root.link(name, &format!("{ROOT}/{name}")))
}

fn list_data_centers(state: &State, call: &Call) -> Answer {
    let properties = |known: &DataCenter| {
        let domains = state.storage_domains.iter();
        let attached = domains.filter(|domain| domain.data_center.as_ref() == Some(&known.id));
        let mut properties = vec![("name", known.name.clone())];
        properties.extend(attached.map(|domain| ("storage.name", domain.name.clone())));
        // Found by nothing, where there is none.
        properties.push(("storage.name", String::new()));
        properties
    };
    list_by(&state.data_centers, call, "data_centers", properties, show_data_center)
}

fn show_data_center(known: &DataCenter) -> Element {
    let place = href(&["datacenters", &known.id]);
    Element::resource("data_center", &place, &known.id)
        .with("name", &known.name)
        .with("status", "up")
        .with("local", false)
        .link("storagedomains", &format!("{place}/storagedomains"))
        .link("clusters", &format!("{place}/clusters"))
}

fn show_cluster(known: &Cluster) -> Element {
    let center =
        Element::resource("data_center", &href(&["datacenters", &known.data_center]), &known.data_center);
    Element::resource("cluster", &href(&["clusters", &known.id]), &known.id)
        .with("name", &known.name)
        .and(
            Element::object("cpu").with("architecture", "x86_64").with("type", "Secure Intel Nehalem Family"),
        )
        .and(center)
}

fn list_storage_domains(state: &State, call: &Call) -> Answer {
    let properties = |known: &StorageDomain| {
        let center = state.data_centers.iter().find(|center| Some(&center.id) == known.data_center.as_ref());
        let center = center.map(|center| center.name.clone());
        vec![("name", known.name.clone()), ("datacenter", center.unwrap_or_default())]
    };
    list_by(&state.storage_domains, call, "storage_domains", properties, show_storage_domain)
}

fn show_storage_domain(known: &StorageDomain) -> Element {
    let place = href(&["storagedomains", &known.id]);
    let shown = Element::resource("storage_domain", &place, &known.id)
        .with("name", &known.name)
        .with("status", if known.data_center.is_some() { "active" } else { "unattached" })
        .with("type", "data")
        .with("block_size", 512)
        .and(Element::object("storage").with("type", "nfs"))
        .link("disksnapshots", &format!("{place}/disksnapshots"));
    let center = |id: &String| Element::resource("data_center", &href(&["datacenters", id]), id);
    shown.and(Element::list("data_centers", known.data_center.iter().map(center)))
}

fn list_hosts(state: &State, call: &Call) -> Answer {
    let properties = |known: &Host| {
        let cluster = state.clusters.iter().find(|cluster| cluster.id == known.cluster);
        let mut centers = state.data_centers.iter();
        let center = centers.find(|center| cluster.is_some_and(|cluster| cluster.data_center == center.id));
        vec![
            ("name", known.name.clone()),
            ("hw_id", known.hardware_id.clone()),
            ("address", known.address.clone()),
            ("status", known.status.name().to_owned()),
            ("cluster", cluster.map(|cluster| cluster.name.clone()).unwrap_or_default()),
            ("datacenter", center.map(|center| center.name.clone()).unwrap_or_default()),
        ]
    };
    list_by(&state.hosts, call, "hosts", properties, show_host)
}

fn show_host(known: &Host) -> Element {
    Element::resource("host", &href(&["hosts", &known.id]), &known.id)
        .with("name", &known.name)
        .with("address", &known.address)
        .with("status", known.status.name())
        .and(Element::object("hardware_information").with("uuid", &known.hardware_id))
        .and(Element::resource("cluster", &href(&["clusters", &known.cluster]), &known.cluster))
}

fn show_job(job: &Job) -> Element {
    Element::resource("job", &href(&["jobs", &job.id]), &job.id)
        .with("description", &job.description)
        .with("status", if job.is_finished { "finished" } else { "started" })
}

fn show_event(event: &Event) -> Element {
    let id = event.id.to_string();
    Element::resource("event", &href(&["events", &id]), &id)
        .with("code", event.code)
        .with("description", &event.description)
        .with("severity", "error")
}
