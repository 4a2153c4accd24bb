//! Deliveries of one endpoint that are named: where its lane has them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use posthaste_core::id::{DeliveryId, EndpointId};
use posthaste_core::operation::Kind;
use posthaste_core::timers::Owed;

use crate::api::Api;
use crate::api::look::owed::{Owing, Waits};
use crate::api::look::{Budget, CLOCKS_APART, before};
use crate::api::problem::Problem;
use crate::log::{Offset, Record};

/// Where one stands, or its copies do.
#[derive(Debug, Default)]
pub(in crate::api) struct Places {
    scheduled: Option<Offset>,
    held: Vec<Offset>,
}

/// What was found of some.
#[derive(Debug)]
pub(in crate::api) struct Named {
    of: BTreeMap<DeliveryId, Places>,
    /// Whether one of which nothing was found is not owed.
    is_all: bool,
}

/// Looks for them where the endpoint's lane has what it owes.
///
/// A copy of what is held is looked for a while behind it: the log takes what was
/// not acknowledged again.
pub(in crate::api) async fn look(
    api: &Api,
    endpoint: EndpointId,
    ids: BTreeSet<DeliveryId>,
) -> Result<Named, Problem> {
    let times = ids.iter().map(DeliveryId::time);
    let (first, last) = (times.clone().min(), times.max());
    let mut over = last.unwrap_or_default().after(CLOCKS_APART);
    let mut of: BTreeMap<_, _> = ids.into_iter().map(|id| (id, Places::default())).collect();
    let owing = Owing::open(api, endpoint).await?;
    for (owed, at) in owing.scheduled() {
        if let Some(places) = of.get_mut(&owed.delivery) {
            places.scheduled = Some(at);
        }
    }
    // None stands there before its event.
    let since = before(first.unwrap_or_default(), CLOCKS_APART);
    let from = owing.offset_at(since).await?;
    let mut missing = of.values().filter(|places| !places.is_owed()).count();
    let take = |record: &Record, owed: Owed| {
        if let Some(places) = of.get_mut(&owed.delivery) {
            missing -= usize::from(!places.is_owed());
            places.held.push(record.offset);
            over = over.max(record.timestamp.after(CLOCKS_APART));
        }
        match missing == 0 && record.timestamp > over {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let rest = owing
        .each(Waits::Held, from, &mut Budget::new(), take)
        .await?;
    let is_all = rest.is_none_or(|rest| rest.ended_by.is_none());
    Ok(Named { of, is_all })
}

impl Places {
    fn is_owed(&self) -> bool {
        self.scheduled.is_some() || !self.held.is_empty()
    }
}

impl Named {
    /// What the one delivery waits for that was named; `None` where it is not
    /// owed, or not known to be.
    pub(super) fn waits(&self) -> Option<Waits> {
        let places = self.of.values().find(|places| places.is_owed())?;
        Some(match places.scheduled {
            Some(_) => Waits::Scheduled,
            None => Waits::Held,
        })
    }

    /// Where an operation of that kind finds them all.
    ///
    /// # Errors
    /// 409 that names those which it cannot be asked of.
    pub(in crate::api) fn offsets(&self, kind: Kind) -> Result<Vec<Offset>, Problem> {
        let those = |wrong: fn(&Places) -> bool| {
            let wrong = self.of.iter().filter(|(_, places)| wrong(places));
            let names: Vec<_> = wrong.map(|(id, _)| id.to_string()).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        if let Some(names) = those(|places| !places.is_owed()) {
            let why = match self.is_all {
                true => "not owed to the endpoint",
                false => "not known to be owed: the lane holds too much",
            };
            return Err(Problem::conflict(
                "delivery_not_owed",
                format!("{names}: {why}"),
            ));
        }
        if kind == Kind::RetryNow
            && let Some(names) = those(|places| places.scheduled.is_none())
        {
            let why = "waits until its endpoint takes deliveries, and comes then";
            return Err(Problem::conflict(
                "delivery_held",
                format!("{names}: {why}"),
            ));
        }
        let scheduled = self.of.values().filter_map(|places| places.scheduled);
        let held = self.of.values().flat_map(|places| &places.held).copied();
        Ok(scheduled.chain(held).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [DeliveryId; 3] = [
        DeliveryId::from_bytes([1; 16]),
        DeliveryId::from_bytes([2; 16]),
        DeliveryId::from_bytes([3; 16]),
    ];

    fn named(places: &[(Option<Offset>, &[Offset])], is_all: bool) -> Named {
        let places = places.iter().map(|(scheduled, held)| Places {
            scheduled: *scheduled,
            held: held.to_vec(),
        });
        Named {
            of: IDS.into_iter().zip(places).collect(),
            is_all,
        }
    }

    #[test]
    fn all_of_them_and_their_copies_or_none() {
        let found = named(&[(Some(7), &[9]), (None, &[3, 4])], true);
        assert_eq!(found.offsets(Kind::Cancel).unwrap(), [7, 9, 3, 4]);
        let held = found.offsets(Kind::RetryNow).unwrap_err();
        assert_eq!(held.code(), "delivery_held");
        let (first, second) = (IDS[0].to_string(), IDS[1].to_string());
        assert!(held.to_string().contains(&second) && !held.to_string().contains(&first));
        for (is_all, why) in [(true, "not owed"), (false, "holds too much")] {
            let found = named(&[(Some(7), &[]), (None, &[3]), (None, &[])], is_all);
            let missing = found.offsets(Kind::Cancel).unwrap_err();
            assert_eq!(missing.code(), "delivery_not_owed");
            let said = missing.to_string();
            assert!(
                said.contains(&IDS[2].to_string()) && said.contains(why),
                "{said}"
            );
            assert!(!said.contains(&first) && !said.contains(&second), "{said}");
        }
    }

    #[test]
    fn what_waits_for_its_time_is_told_from_what_is_held() {
        assert_eq!(
            named(&[(Some(7), &[9])], true).waits(),
            Some(Waits::Scheduled)
        );
        assert_eq!(named(&[(None, &[9])], true).waits(), Some(Waits::Held));
        assert_eq!(named(&[(None, &[])], true).waits(), None);
    }
}
