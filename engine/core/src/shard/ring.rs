//! Whose turn it is: deficit round robin (Shreedhar, Varghese 1995) on two
//! levels, tenants and then their endpoints.
//!
//! A visit is worth one turn. What costs more is paid for by the visits that
//! follow, so of two that have something waiting from one moment on, neither gets
//! more than one delivery and one turn ahead of the other, however large
//! deliveries are.

use std::collections::{BTreeMap, VecDeque};

use crate::limits::TENANT_IN_FLIGHT_MAX;
use crate::registry::EndpointIx;

/// The endpoints that may be able to start something, in the order of their
/// turns.
#[derive(Debug, Default)]
pub(super) struct Ring {
    tenants: Vec<Tenant>,
    by_name: BTreeMap<String, u32>,
    /// Tenants that have endpoints here.
    order: VecDeque<u32>,
}

#[derive(Debug, Default)]
struct Tenant {
    /// With the turns each has had in advance.
    endpoints: VecDeque<(EndpointIx, u32)>,
    debt: u32,
    in_flight: usize,
    in_order: bool,
}

impl Ring {
    /// A tenant's place, the same for the life of the shard.
    pub(super) fn tenant(&mut self, name: &str) -> u32 {
        if let Some(&place) = self.by_name.get(name) {
            return place;
        }
        let place = u32::try_from(self.tenants.len()).expect("fewer than 2^32 tenants");
        self.tenants.push(Tenant::default());
        self.by_name.insert(name.to_owned(), place);
        place
    }

    /// Puts an endpoint at the end of its tenant's turns.
    pub(super) fn enter(&mut self, tenant: u32, ix: EndpointIx, debt: u32) {
        let entry = &mut self.tenants[index(tenant)];
        entry.endpoints.push_back((ix, debt));
        if !entry.in_order {
            entry.in_order = true;
            self.order.push_back(tenant);
        }
    }

    /// Takes out the endpoint whose turn it is. [`began`](Self::began) follows if
    /// it has used it.
    pub(super) fn next(&mut self) -> Option<(u32, EndpointIx)> {
        // Tenants passed over in a row for having their part.
        let mut passed = 0;
        loop {
            let &place = self.order.front()?;
            let others = self.order.len() > 1;
            let tenant = &mut self.tenants[index(place)];
            if tenant.endpoints.is_empty() {
                tenant.in_order = false;
                self.order.pop_front();
                continue;
            }
            let full = tenant.in_flight >= TENANT_IN_FLIGHT_MAX;
            if full && others && passed < self.order.len() {
                passed += 1;
                self.order.rotate_left(1);
                continue;
            }
            if tenant.debt > 0 {
                tenant.debt -= 1;
                passed = 0;
                self.order.rotate_left(1);
                continue;
            }
            while let Some((ix, debt)) = tenant.endpoints.pop_front() {
                if debt == 0 {
                    return Some((place, ix));
                }
                tenant.endpoints.push_back((ix, debt - 1));
            }
        }
    }

    /// The endpoint of this tenant that was [`next`](Self::next) began something
    /// that costs so many turns.
    pub(super) fn began(&mut self, tenant: u32, cost: u32) {
        let entry = &mut self.tenants[index(tenant)];
        entry.in_flight += 1;
        entry.debt += cost - 1;
        // Who had the turn stands in front.
        self.order.rotate_left(1);
    }

    /// An attempt of this tenant ended.
    pub(super) fn ended(&mut self, tenant: u32) {
        self.tenants[index(tenant)].in_flight -= 1;
    }
}

fn index(place: u32) -> usize {
    usize::try_from(place).expect("an index fits the address space")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, ProptestConfig, prop};
    use proptest::{prop_assert, prop_oneof, proptest};

    use super::*;

    #[test]
    fn a_tenant_has_a_quarter_of_the_slots_while_others_wait() {
        let mut ring = Ring::default();
        let (one, two) = (ring.tenant("one"), ring.tenant("two"));
        assert_eq!(ring.tenant("one"), one);
        let run = |ring: &mut Ring| {
            let (tenant, ix) = ring.next().unwrap();
            ring.began(tenant, 1);
            ring.enter(tenant, ix, 0);
            tenant
        };
        ring.enter(one, EndpointIx(0), 0);
        for _ in 0..TENANT_IN_FLIGHT_MAX + 50 {
            assert_eq!(run(&mut ring), one, "alone it may have all");
        }
        ring.enter(two, EndpointIx(1), 0);
        for _ in 0..TENANT_IN_FLIGHT_MAX {
            assert_eq!(run(&mut ring), two, "the other has its part already");
        }
        // Both have it: they take turns, so that no slot stays empty.
        let turns = [run(&mut ring), run(&mut ring), run(&mut ring)];
        assert!(turns == [one, two, one] || turns == [two, one, two]);
        (0..TENANT_IN_FLIGHT_MAX).for_each(|_| ring.ended(two));
        assert_eq!(run(&mut ring), two);
    }

    #[test]
    fn a_tenant_with_many_endpoints_gets_no_more_than_one_with_few() {
        let mut ring = Ring::default();
        let (many, few) = (ring.tenant("many"), ring.tenant("few"));
        for number in 0..99 {
            ring.enter(many, EndpointIx(number), 0);
        }
        ring.enter(few, EndpointIx(99), 0);
        let mut few_began = 0;
        for _ in 0..100 {
            let (tenant, ix) = ring.next().unwrap();
            few_began += u32::from(tenant == few);
            ring.began(tenant, 1);
            ring.ended(tenant);
            ring.enter(tenant, ix, 0);
        }
        assert_eq!(few_began, 50);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// Of endpoints of one tenant, and of tenants, none gets more than one
        /// turn and one delivery ahead of another that waits as well; over a
        /// span that begins when one was ahead already, one delivery more.
        #[test]
        fn equals_get_equal_parts(
            tenants in 1..4_u32,
            endpoints in 1..6_u32,
            costs in prop::collection::vec(1..66_u32, 1..40),
            from in prop_oneof![Just(0), 0..200_usize],
        ) {
            const COST_MAX: i64 = 65;
            let ahead = if from == 0 { 1 + COST_MAX } else { 1 + 2 * COST_MAX };
            let mut ring = Ring::default();
            for tenant in 0..tenants {
                let place = ring.tenant(&tenant.to_string());
                for number in 0..endpoints {
                    ring.enter(place, EndpointIx(tenant * 100 + number), 0);
                }
            }
            let mut costs = costs.iter().copied().cycle();
            let mut served = BTreeMap::<u32, i64>::new();
            for turn in 0..600 {
                let (tenant, ix) = ring.next().unwrap();
                let cost = costs.next().unwrap();
                ring.began(tenant, cost);
                ring.ended(tenant);
                ring.enter(tenant, ix, cost - 1);
                if turn < from {
                    continue;
                }
                *served.entry(ix.0).or_default() += i64::from(cost);
                let of = |ix: u32| served.get(&ix).copied().unwrap_or(0);
                let all = |tenant: u32| (0..endpoints).map(|n| of(tenant * 100 + n)).sum::<i64>();
                let spread = |parts: &[i64]| {
                    parts.iter().max().unwrap_or(&0) - parts.iter().min().unwrap_or(&0)
                };
                let by_tenant: Vec<_> = (0..tenants).map(all).collect();
                prop_assert!(spread(&by_tenant) <= ahead, "{by_tenant:?}");
                for tenant in 0..tenants {
                    let own: Vec<_> = (0..endpoints).map(|n| of(tenant * 100 + n)).collect();
                    prop_assert!(spread(&own) <= ahead, "{own:?}");
                }
            }
        }
    }
}
