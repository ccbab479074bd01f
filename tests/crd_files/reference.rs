//! `docs/reference.md`: every field of the three kinds, as the CRDs have it.
//!
//! Made from the same schemas as `crds/`, by the same task. What a schema has that this page would not show fails here,
//! so that a new kind of limit is not lost in silence.

use std::{fmt::Write as _, fs};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use webhook_operator::api::schema;

const PAGE: &str = "docs/reference.md";

const INTRODUCTION: &str = "\
<!-- Generated from src/api by `cargo xtask crds`. Do not edit. -->

# Reference

Every field of the three kinds, as `kubectl explain webhook.spec` has it, with types, defaults and limits. What the
conditions in a status mean is in [conditions](conditions.md); what each upstream can do of it, in its page
([Conpeek](providers/conpeek.md), [Thulium](providers/thulium.md), [ricloud](providers/ricloud.md),
[Autocosmos](providers/autocosmos.md)).

`[]` stands for each element of a list, `{}` for each value of a map. An immutable field stays as it was made: delete
the object and create it anew. The rules are checked when a manifest is applied, and but for the immutable ones by
[`webhook-operator check`](check.md); their messages are what `kubectl apply` then prints.
";

#[test]
fn the_reference_is_what_the_crds_say() {
    let path = super::root().join(PAGE);
    let wanted = page();
    if super::updates() {
        fs::write(&path, &wanted).unwrap();
    }
    let found = fs::read_to_string(&path)
        .unwrap_or_default()
        .replace("\r\n", "\n");
    assert!(
        found == wanted,
        "{PAGE} is not what src/api says; run `cargo xtask crds`"
    );
}

/// A field that the walk of the other tests meets has its row.
#[test]
fn every_field_has_its_row() {
    let page = page();
    let mut fields = 0;
    super::each_node(|path, _| {
        let (_, field) = path.split_once('.').unwrap();
        let inner = field.ends_with([']', '}']);
        if !inner && field.contains('.') {
            fields += 1;
            assert!(page.contains(&format!("\n| `{field}` | ")), "{path} has no row");
        }
    });
    assert!(fields > 100, "only {fields} fields were looked for");
}

/// The whole page.
fn page() -> String {
    let mut text = INTRODUCTION.to_owned();
    for crd in schema::crds() {
        kind(&crd, &mut text);
    }
    text
}

fn kind(crd: &CustomResourceDefinition, text: &mut String) {
    let version = &crd.spec.versions[0];
    let root = super::schema_of(crd);
    let names = &crd.spec.names;
    write!(
        text,
        "\n## {}\n\n{}\n\n`apiVersion: {}/{}`, {}, short name `{}`.\n",
        names.kind,
        prose(root.description.as_deref().unwrap()),
        crd.spec.group,
        version.name,
        if crd.spec.scope == "Cluster" {
            "of the whole cluster"
        } else {
            "in a namespace"
        },
        names.short_names.as_ref().unwrap()[0],
    )
    .unwrap();
    for part in ["spec", "status"] {
        let node = &root.properties.as_ref().unwrap()[part];
        let (mut rows, mut rules) = (String::new(), String::new());
        fields(part, node, &mut rows, &mut rules);
        let kind = &names.kind;
        write!(
            text,
            "\n### {kind}.{part}\n\n| field | type | default | limits | meaning |\n|---|---|---|---|---|\n{rows}"
        )
        .unwrap();
        if !rules.is_empty() {
            write!(
                text,
                "\n#### Rules of {kind}.{part}\n\n| field | what breaks the rule is refused with |\n|---|---|\n{rules}"
            )
            .unwrap();
        }
    }
}

/// Rows of all fields below a node, and rows of the rules on the way.
fn fields(path: &str, node: &JSONSchemaProps, rows: &mut String, rules: &mut String) {
    for rule in node.x_kubernetes_validations.iter().flatten() {
        let field = format!("{path}{}", rule.field_path.as_deref().unwrap_or_default());
        let message = code(rule.message.as_deref().unwrap());
        writeln!(rules, "| `{field}` | {message} |").unwrap();
    }
    for (name, child) in node.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        writeln!(
            rows,
            "| `{path}` | {} | {} | {} | {} |",
            type_of(child),
            child
                .default
                .as_ref()
                .map(|default| code(&default.0.to_string()))
                .unwrap_or_default(),
            limits(node, name, child).join("; "),
            prose(child.description.as_deref().unwrap()),
        )
        .unwrap();
        fields(&path, child, rows, rules);
    }
    if let Some(items) = items(node) {
        fields(&format!("{path}[]"), items, rows, rules);
    }
    if let Some(values) = values(node) {
        fields(&format!("{path}{{}}"), values, rows, rules);
    }
}

fn items(node: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match node.items.as_ref()? {
        JSONSchemaPropsOrArray::Schema(items) => Some(items),
        JSONSchemaPropsOrArray::Schemas(_) => panic!("the apiserver takes no list of item schemas"),
    }
}

fn values(node: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match node.additional_properties.as_ref()? {
        JSONSchemaPropsOrBool::Schema(values) => Some(values),
        JSONSchemaPropsOrBool::Bool(_) => None,
    }
}

fn type_of(node: &JSONSchemaProps) -> String {
    if let Some(items) = items(node) {
        let what = match node.x_kubernetes_list_type.as_deref() {
            Some("set") => "set".to_owned(),
            Some("map") => format!(
                "list, unique by `{}`,",
                node.x_kubernetes_list_map_keys.as_ref().unwrap().join("`, `")
            ),
            _ => "list".to_owned(),
        };
        return format!("{what} of {}", type_of(items));
    }
    if let Some(values) = values(node) {
        return format!("map of {}", type_of(values));
    }
    match (node.type_.as_deref().unwrap(), node.format.as_deref()) {
        ("string", Some("date-time")) => "time".to_owned(),
        (type_, _) => type_.to_owned(),
    }
}

/// What a value may be, in words; first of all, whether it has to be there.
fn limits(parent: &JSONSchemaProps, name: &str, node: &JSONSchemaProps) -> Vec<String> {
    let mut limits = Vec::new();
    if parent.required.iter().flatten().any(|field| field == name) {
        limits.push("required".to_owned());
    }
    if is_immutable(parent, name, node) {
        limits.push("immutable".to_owned());
    }
    own_limits(node, &mut limits);
    for inner in [items(node), values(node)].into_iter().flatten() {
        let mut of_each = Vec::new();
        own_limits(inner, &mut of_each);
        limits.extend(of_each.into_iter().map(|limit| format!("each: {limit}")));
    }
    limits
}

fn own_limits(node: &JSONSchemaProps, limits: &mut Vec<String>) {
    if let Some(values) = &node.enum_ {
        let values: Vec<String> = values
            .iter()
            .map(|value| code(value.0.as_str().unwrap()))
            .collect();
        limits.push(values.join(", "));
    }
    let mut range = |least: Option<String>, most: Option<String>, unit: &str| {
        limits.extend(match (least, most) {
            (Some(least), Some(most)) => Some(format!("{least} to {most}{unit}")),
            (Some(least), None) => Some(format!("at least {least}{unit}")),
            (None, Some(most)) => Some(format!("at most {most}{unit}")),
            (None, None) => None,
        });
    };
    let text = |number: &i64| number.to_string();
    range(
        node.min_length.as_ref().map(text),
        node.max_length.as_ref().map(text),
        " characters",
    );
    range(
        node.min_items.as_ref().map(text),
        node.max_items.as_ref().map(text),
        " elements",
    );
    range(
        node.min_properties.as_ref().map(text),
        node.max_properties.as_ref().map(text),
        " entries",
    );
    let text = |number: &f64| number.to_string();
    range(
        node.minimum.as_ref().map(text),
        node.maximum.as_ref().map(text),
        "",
    );
    if let Some(pattern) = &node.pattern {
        limits.push(format!("matches {}", code(pattern)));
    }
    let unknown = node.exclusive_minimum.is_some()
        || node.exclusive_maximum.is_some()
        || node.multiple_of.is_some()
        || node.unique_items.is_some();
    assert!(!unknown, "a limit that {PAGE} does not show yet: {node:?}");
}

/// A rule that compares with the earlier object says so, at the field or at the object around it.
fn is_immutable(parent: &JSONSchemaProps, name: &str, node: &JSONSchemaProps) -> bool {
    let at_field = format!(".{name}");
    let own = node.x_kubernetes_validations.iter().flatten();
    let around = parent.x_kubernetes_validations.iter().flatten();
    own.chain(around.filter(|rule| rule.field_path.as_deref() == Some(&at_field)))
        .any(|rule| rule.rule.contains("oldSelf"))
}

/// Literal text in a cell; with two backticks around what has one in it.
fn code(text: &str) -> String {
    let text = text.replace('|', "\\|");
    if text.contains('`') {
        format!("`` {text} ``")
    } else {
        format!("`{text}`")
    }
}

/// A description in a cell: its own code spans stay, nothing else may look like HTML or a new cell.
fn prose(text: &str) -> String {
    let escaped = |(index, part): (usize, &str)| {
        let part = part.replace('|', "\\|");
        if index % 2 == 0 {
            part.replace('<', "&lt;").replace("\n\n", "<br>")
        } else {
            part
        }
    };
    text.split('`')
        .enumerate()
        .map(escaped)
        .collect::<Vec<_>>()
        .join("`")
}
