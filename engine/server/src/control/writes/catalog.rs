//! Writing what is said of tenants and event types.

use std::sync::Arc;

use bytes::Bytes;
use posthaste_core::records::{Versioned, record_key};
use posthaste_proto::Record as _;

use super::{By, Change, actor};
use crate::control::catalog::Kind;
use crate::control::{CommandError, Endpoints};
use crate::log::NewRecord;

impl Endpoints {
    /// Writes a record as a change of the version `based`, that of
    /// [`Records::version`](posthaste_core::records::Records::version); answers
    /// what stands, once this instance sees it.
    ///
    /// # Errors
    /// [`CommandError::Conflict`] when that is not the present version.
    pub async fn put_record<T: Kind>(
        &self,
        record: T,
        based: u64,
        by: &By,
    ) -> Result<Versioned<T>, CommandError> {
        let _turn = self
            .writer
            .turn_of(record.record_name().as_bytes())
            .lock()
            .await;
        let is_there = self.unmoved::<T>(record.record_name(), based)?;
        let version = based + 1;
        let [created, updated, _] = T::ACTIONS;
        let action = if is_there { updated } else { created };
        let value = record.to_proto(version).to_value();
        let change = change::<T>(record.record_name(), action, version);
        self.writer.write(change, value, by).await?;
        let record = Arc::new(record);
        Ok(Versioned { record, version })
    }

    /// Deletes a record as a change of the version `based`; answers once this
    /// instance sees it.
    ///
    /// # Errors
    /// [`CommandError::Conflict`] when that is not the present version.
    pub async fn delete_record<T: Kind>(
        &self,
        name: &str,
        based: u64,
        by: &By,
    ) -> Result<(), CommandError> {
        let _turn = self.writer.turn_of(name.as_bytes()).lock().await;
        self.unmoved::<T>(name, based)?;
        let version = based + 1;
        let [_, _, deleted] = T::ACTIONS;
        let value = T::deleted(name, version).to_value();
        let change = change::<T>(name, deleted, version);
        self.writer.write(change, value, by).await?;
        self.forget::<T>(by).await;
        Ok(())
    }

    /// Lets the log forget the name that was deleted longest ago. One that stays
    /// costs a line.
    async fn forget<T: Kind>(&self, by: &By) {
        let catalog = self.catalog();
        let Some(name) = T::among(&catalog).forgettable() else {
            return;
        };
        let record = NewRecord {
            to: self.writer.table.clone(),
            key: record_key::<T>(name),
            value: Bytes::new(),
            headers: vec![actor(by)],
        };
        if let Err(error) = self.writer.append(record).await {
            tracing::warn!(name, %error, "deleted long ago, and still in the log");
        }
    }

    /// Whether there is a record of that name, if it is of that version still.
    fn unmoved<T: Kind>(&self, name: &str, based: u64) -> Result<bool, CommandError> {
        let catalog = self.catalog();
        let records = T::among(&catalog);
        let present = records.get(name).map(|present| present.version);
        match records.version(name) == based {
            true => Ok(present.is_some()),
            false => Err(CommandError::Conflict { present }),
        }
    }
}

fn change<T: Kind>(name: &str, action: &'static str, version: u64) -> Change {
    Change {
        key: record_key::<T>(name),
        action,
        subject: name.to_owned(),
        tenant: T::tenant(name).to_owned(),
        version,
    }
}
