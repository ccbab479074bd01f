//! Reading a body of Autocosmos as a full replacement, with every problem named by its property.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{AppWebhook, CustomHeader, Target};
use crate::secret::Secret;

/// Messages by property; `_` is the entry as a whole.
pub(super) type Errors = BTreeMap<String, Vec<String>>;

impl Target<'_> {
    /// Reads the body as a full replacement.
    pub(super) fn read(&self) -> Result<AppWebhook, Errors> {
        let whole = |message: &str| Errors::from([("_".to_owned(), vec![message.to_owned()])]);
        if !self.call.is_json() {
            return Err(whole("Content-Type debe ser application/json."));
        }
        let body: Map<String, Value> =
            serde_json::from_slice(&self.call.body).map_err(|_| whole("JSON inválido."))?;
        let mut reader = Reader {
            body: &body,
            errors: Errors::new(),
        };
        let webhook = AppWebhook {
            app_key: self.key.0.clone(),
            topic: self.key.1.clone(),
            callback: reader.callback(),
            secret: reader.text("Secret", 16, 256).map(Secret::from),
            description: reader.text("Description", 0, 256),
            activo: reader.flag("Activo"),
            headers: [
                reader.custom_header("HeaderCustom01"),
                reader.custom_header("HeaderCustom02"),
                reader.custom_header("HeaderCustom03"),
            ],
        };
        if self.behaviour.refuse_unknown_fields {
            reader.refuse_unknown();
        }
        if reader.errors.is_empty() {
            Ok(webhook)
        } else {
            Err(reader.errors)
        }
    }
}

/// Reads fields and collects what is wrong with them.
struct Reader<'a> {
    body: &'a Map<String, Value>,
    errors: Errors,
}

impl Reader<'_> {
    fn wrong(&mut self, name: &str, message: impl Into<String>) {
        self.errors
            .entry(name.to_owned())
            .or_default()
            .push(message.into());
    }

    fn text(&mut self, name: &str, min: usize, max: usize) -> Option<String> {
        match self.body.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if (min..=max).contains(&text.chars().count()) => Some(text.clone()),
            Some(Value::String(_)) => {
                self.wrong(name, format!("Debe tener entre {min} y {max} caracteres."));
                None
            }
            Some(_) => {
                self.wrong(name, "Debe ser un texto.");
                None
            }
        }
    }

    fn callback(&mut self) -> Option<String> {
        let callback = self.text("Callback", 0, 1024)?;
        if !callback.is_empty() && url::Url::parse(&callback).is_err() {
            self.wrong("Callback", "Debe ser una URI.");
        }
        Some(callback)
    }

    /// The default is not documented; active is assumed.
    fn flag(&mut self, name: &str) -> bool {
        match self.body.get(name) {
            None => true,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.wrong(name, "Debe ser true o false.");
                true
            }
        }
    }

    fn custom_header(&mut self, name: &str) -> Option<CustomHeader> {
        match self.body.get(name) {
            None | Some(Value::Null) => None,
            Some(value) => {
                let header = serde_json::from_value(value.clone());
                if header.is_err() {
                    self.wrong(name, "Debe tener Name y Value.");
                }
                header.ok()
            }
        }
    }

    fn refuse_unknown(&mut self) {
        const KNOWN: [&str; 7] = [
            "Callback",
            "Secret",
            "Description",
            "Activo",
            "HeaderCustom01",
            "HeaderCustom02",
            "HeaderCustom03",
        ];
        for name in self.body.keys().filter(|name| !KNOWN.contains(&name.as_str())) {
            self.errors
                .entry(name.clone())
                .or_default()
                .push("Propiedad desconocida.".to_owned());
        }
    }
}
