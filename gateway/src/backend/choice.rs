//! Which of several servers the next session gets: of two that chance picks by their weights, the one with fewer sessions for
//! its weight. That is nearly as even as to look at all of them, and no herd runs to the one that looked best a moment ago.

/// A server that may be chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Its place in the pool.
    pub(super) index: usize,
    /// Others come first, whatever their priority.
    pub(super) avoided: bool,
    /// Lower ones come first.
    pub(super) priority: u32,
    /// Not 0.
    pub(super) weight: u32,
    /// Open now.
    pub(super) sessions: u32,
}

/// The place of the one to take; `None` if there is none. `random` is 64 bits of chance.
pub(super) fn choose(candidates: &[Candidate], random: u64) -> Option<usize> {
    let rank = |candidate: &Candidate| (candidate.avoided, candidate.priority);
    let best = candidates.iter().map(rank).min()?;
    let equals = || candidates.iter().filter(|candidate| rank(candidate) == best);
    let total: u64 = equals().map(|candidate| u64::from(candidate.weight)).sum();
    let pick = |chance: u64| {
        // 32 bits of chance, scaled to the sum of weights.
        let mut left = ((chance & 0xffff_ffff) * total) >> 32;
        equals().find(|candidate| {
            let is_it = left < u64::from(candidate.weight);
            left = left.saturating_sub(u64::from(candidate.weight));
            is_it
        })
    };
    let (one, other) = (pick(random)?, pick(random >> 32)?);
    let would_bear = |of: &Candidate, by: &Candidate| u64::from(of.sessions + 1) * u64::from(by.weight);
    Some(if would_bear(other, one) < would_bear(one, other) { other.index } else { one.index })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chance that is the same every time.
    fn chances() -> impl FnMut() -> u64 {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }
    }

    fn candidate(index: usize) -> Candidate {
        Candidate { index, avoided: false, priority: 1, weight: 1000, sessions: 0 }
    }

    /// How many of 100,000 sessions each got, of which a thousand are open at any time.
    fn spread(mut candidates: Vec<Candidate>) -> Vec<u32> {
        let mut chance = chances();
        let mut open = Vec::new();
        let mut got = vec![0; candidates.len()];
        for _ in 0..100_000 {
            if open.len() == 1000 {
                let at = usize::try_from(chance() % 1000).unwrap();
                let ended: usize = open.swap_remove(at);
                candidates[ended].sessions -= 1;
            }
            let chosen = choose(&candidates, chance()).unwrap();
            candidates[chosen].sessions += 1;
            got[chosen] += 1;
            open.push(chosen);
        }
        got
    }

    #[test]
    fn eight_servers_share_a_hundred_thousand_sessions_within_five_percent() {
        for got in spread((0..8).map(candidate).collect()) {
            assert!((11_875..=13_125).contains(&got), "{got} of 12,500");
        }
    }

    #[test]
    fn weights_are_kept() {
        let got = spread(vec![Candidate { weight: 3000, ..candidate(0) }, candidate(1)]);
        assert!((71_250..=78_750).contains(&got[0]), "{} of 75,000", got[0]);
    }

    #[test]
    fn spares_are_for_when_nobody_else_is_fit() {
        let spare = Candidate { priority: 2, ..candidate(1) };
        let mut chance = chances();
        let chosen = |candidates: &[Candidate], chance| choose(candidates, chance);
        for _ in 0..100 {
            assert_eq!(chosen(&[candidate(0), spare], chance()), Some(0));
            assert_eq!(chosen(&[Candidate { avoided: true, ..candidate(0) }, spare], chance()), Some(1));
            let both = [Candidate { avoided: true, ..candidate(0) }, Candidate { avoided: true, ..spare }];
            assert_eq!(chosen(&both, chance()), Some(0), "all are tried, in their order");
        }
        assert_eq!(chosen(&[], 0), None);
    }
}
