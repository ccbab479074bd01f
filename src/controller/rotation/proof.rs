//! Probes signed with the next secret: whether the receiver knows it before the upstream signs with it.

use jiff::Timestamp;

use super::book::Book;
use crate::{
    clock::elapsed,
    controller::{act::Pass, context::SecretContent, reconcile::PassError},
    domain::{
        rotation::{Candidate, Probed, Proof, next_key},
        testing::Tester,
    },
};

impl Pass {
    /// What probes have shown of the next secret.
    pub(super) fn proof(&self, book: &Book) -> Option<Proof> {
        let Some(Candidate::Usable(print)) = &book.keys.next else {
            return None;
        };
        let proof = self.memory.with(|memory| memory.rotation.proof.clone());
        proof.filter(|(of, _)| of == print).map(|(_, proof)| proof)
    }

    /// Takes the verdict of a probe that has landed; what was shown of another secret does not count.
    pub(super) fn take_proof(&self, book: &Book) {
        let Some(Candidate::Usable(print)) = &book.keys.next else {
            self.memory.with(|memory| {
                memory.rotation.proof = None;
                memory.rotation.sent = false;
            });
            return;
        };
        let purpose = self.next_secret_purpose(print);
        let mut proof = self.proof(book).unwrap_or_default();
        self.memory.with(|memory| {
            if let Some((_, verdict)) = memory.rotation.probe.verdict(&purpose) {
                proof.note(verdict.reason);
                memory.rotation.probe.recorded();
            }
            memory.rotation.sent = memory.rotation.probe.is_flying();
            memory.rotation.proof = Some((print.clone(), proof));
        });
    }

    /// Sends a probe signed with the next secret, if one is due. Returns when to look again; `None`: when it has
    /// landed, or something else happens.
    pub(super) async fn prove(
        &mut self,
        book: &Book,
        secret: SecretContent,
    ) -> Result<Option<Timestamp>, PassError> {
        let (Some(proof), Some(Candidate::Usable(print))) = (self.proof(book), &book.keys.next) else {
            return Ok(None);
        };
        let (flying, launched) = self.memory.with(|memory| {
            let rotation = &memory.rotation;
            (rotation.probe.is_flying(), rotation.launched)
        });
        let asleep = self.tester() != Tester::Operator || !self.is_confirmed() || !self.may_rotate();
        if asleep || flying || proof.probed() == Some(Probed::Passed) {
            return Ok(None);
        }
        let now = self.ctx.clock.now();
        let since = book.journal.next.as_ref().map_or(now, |next| next.since);
        let due = launched.map(|launched| launched + proof.pause(elapsed(since, now)));
        if let Some(due) = due.filter(|due| *due > now) {
            return Ok(Some(due));
        }
        let Some(value) = secret.data.get(&next_key(&book.reference.key)).cloned() else {
            return Ok(None);
        };
        self.made = Some(secret);
        let sent = self.probe_next_secret(value, print).await?;
        self.memory.with(|memory| {
            memory.rotation.sent = sent;
            memory.rotation.launched = Some(now);
        });
        Ok(None)
    }
}
