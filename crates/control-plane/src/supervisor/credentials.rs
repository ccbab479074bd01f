//! Keys, certificates and tokens of one control plane: made for it, kept in its
//! folder (mode 0700), gone with it.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::{Error, protocol::random_hex};

/// Paths of the credentials' files, and the tokens themselves.
pub(super) struct Credentials {
    folder: PathBuf,
    pub(super) admin: String,
    controllers: String,
    ca_pem: String,
}

impl Credentials {
    /// Makes all of them and writes them into `folder`.
    pub(super) fn generate(folder: &Path) -> Result<Self, Error> {
        let (admin, controllers) = (random_hex()?, random_hex()?);
        let (ca_pem, certificate, key, accounts) =
            certificates().map_err(|bad| Error::Servers(format!("cannot make certificates: {bad}")))?;
        let made = Self {
            folder: folder.to_owned(),
            admin,
            controllers,
            ca_pem,
        };
        private_file(&made.ca(), &made.ca_pem)?;
        private_file(&made.certificate(), &certificate)?;
        private_file(&made.key(), &key)?;
        private_file(&made.accounts_key(), &accounts.serialize_pem())?;
        private_file(&made.accounts_public_key(), &accounts.public_key_pem())?;
        private_file(&made.tokens(), &made.token_file())?;
        private_file(&folder.join("admin-token"), &made.admin)?;
        Ok(made)
    }

    /// Certificate of the authority that signed [`Self::certificate`].
    pub(super) fn ca(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// One certificate for all: server of the apiserver and of etcd, and the
    /// apiserver's client certificate for etcd.
    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.join("server.crt")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.folder.join("server.key")
    }

    /// Signs service account tokens.
    pub(super) fn accounts_key(&self) -> PathBuf {
        self.folder.join("service-accounts.key")
    }

    pub(super) fn accounts_public_key(&self) -> PathBuf {
        self.folder.join("service-accounts.pub")
    }

    /// The apiserver's `--token-auth-file`.
    pub(super) fn tokens(&self) -> PathBuf {
        self.folder.join("tokens.csv")
    }

    /// Written by [`Self::write_kubeconfigs`].
    pub(super) fn controllers_kubeconfig(&self) -> PathBuf {
        self.folder.join("controllers.kubeconfig")
    }

    pub(super) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Writes the kubeconfig files, once the port is known.
    pub(super) fn write_kubeconfigs(&self, url: &str) -> Result<(), Error> {
        private_file(
            &self.folder.join("kubeconfig"),
            &self.kubeconfig(url, "admin", &self.admin),
        )?;
        let controllers = self.kubeconfig(url, "controllers", &self.controllers);
        private_file(&self.controllers_kubeconfig(), &controllers)
    }

    /// Both are of `system:masters`; the names tell them apart in the audit log.
    fn token_file(&self) -> String {
        format!(
            "{},admin,admin,system:masters\n{},system:kube-controller-manager,controllers,system:masters\n",
            self.admin, self.controllers
        )
    }

    fn kubeconfig(&self, url: &str, user: &str, token: &str) -> String {
        let ca = BASE64_STANDARD.encode(&self.ca_pem);
        // Nothing in it needs quoting: base64, hexadecimal, a loopback URL.
        format!(
            "apiVersion: v1\n\
             kind: Config\n\
             current-context: control-plane\n\
             contexts:\n\
             - name: control-plane\n  \
               context:\n    cluster: control-plane\n    user: {user}\n\
             clusters:\n\
             - name: control-plane\n  \
               cluster:\n    server: {url}\n    certificate-authority-data: {ca}\n\
             users:\n\
             - name: {user}\n  \
               user:\n    token: {token}\n"
        )
    }
}

type Made = (String, String, String, KeyPair);

fn certificates() -> Result<Made, rcgen::Error> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "control-plane-ca");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate()?;
    let names = [
        "127.0.0.1",
        "localhost",
        "kubernetes.default.svc",
        "kubernetes.default",
    ];
    let mut server = CertificateParams::new(names.map(str::to_owned))?;
    server
        .distinguished_name
        .push(DnType::CommonName, "control-plane");
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let certificate = server.signed_by(&key, &issuer)?.pem();
    Ok((ca_pem, certificate, key.serialize_pem(), KeyPair::generate()?))
}

fn private_file(path: &Path, content: &str) -> Result<(), Error> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .map_err(Error::io(format!("write {}", path.display())))
}
