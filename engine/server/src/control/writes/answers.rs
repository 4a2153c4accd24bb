//! Writing what requests with an idempotency key claim, and are answered.
//!
//! None of it leaves a trace of its own: what the request changes does.

use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use posthaste_core::answers::{Answers, Claim, Refused};
use posthaste_core::endpoint::Sealed;
use posthaste_core::limits::ANSWERS_SWEPT;
use posthaste_core::registry::Applied;
use posthaste_core::time::Timestamp;
use posthaste_proto::Record as _;

use super::{By, actor};
use crate::control::{CommandError, Endpoints};
use crate::log::NewRecord;

impl Endpoints {
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was answered to this request before.
    ///
    /// # Errors
    /// It is neither to be made nor answered.
    pub fn answer(&self, claim: &Claim) -> Result<Option<Sealed>, Refused> {
        self.answers().look(claim)
    }

    /// Claims a request; answers whether it is the claimant's to make, once this
    /// instance knows.
    pub async fn claim(&self, claim: &Claim, by: &By) -> Result<bool, CommandError> {
        self.sweep(by).await;
        let _turn = self.writer.turn_of(claim.id()).lock().await;
        match self.answer(claim) {
            Ok(None) => self.say(claim, claim.to_proto(None).to_value(), by).await,
            Ok(Some(_)) | Err(_) => Ok(false),
        }
    }

    /// Keeps what was answered to a claimed request; answers once this instance
    /// gives it again.
    pub async fn keep(&self, claim: &Claim, answer: Sealed, by: &By) -> Result<(), CommandError> {
        let value = claim.to_proto(Some(answer)).to_value();
        let _turn = self.writer.turn_of(claim.id()).lock().await;
        if !self.say(claim, value, by).await? {
            tracing::warn!(
                "a request with an idempotency key took so long that it may be made twice"
            );
        }
        Ok(())
    }

    /// Frees the key of a claimed request that has no answer to be kept.
    pub async fn release(&self, claim: &Claim, by: &By) -> Result<(), CommandError> {
        let _turn = self.writer.turn_of(claim.id()).lock().await;
        self.say(claim, Bytes::new(), by).await.map(|_| ())
    }

    async fn say(&self, claim: &Claim, value: Bytes, by: &By) -> Result<bool, CommandError> {
        let applied = self.writer.place(claim.key(), value, by).await?;
        Ok(!matches!(applied, Applied::Refused { .. }))
    }

    /// Lets the log forget answers that are over.
    async fn sweep(&self, by: &By) {
        let over: Vec<_> = self.over(by.at);
        if over.is_empty() {
            return;
        }
        let record = |key| NewRecord {
            to: self.writer.table.clone(),
            key,
            value: Bytes::new(),
            headers: vec![actor(by)],
        };
        let records = over.into_iter().map(record).collect();
        for result in self.writer.log.append(records).await {
            if let Err(error) = result {
                tracing::warn!(%error, "an answer that is over is still in the log");
            }
        }
    }

    fn over(&self, now: Timestamp) -> Vec<Bytes> {
        self.answers().over(now).take(ANSWERS_SWEPT).collect()
    }
}
