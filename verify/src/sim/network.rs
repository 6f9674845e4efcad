//! The network between nodes and clients: when a packet arrives, how often, or never.
//!
//! The quality of each direction of each link is drawn separately, so that a run may have one bad
//! direction. A link that is cut loses every packet. A link that is clogged keeps all packets, and
//! delivers them together when it is free again.

use std::collections::BTreeSet;

use super::Time;
use super::lab::Law;
use super::random::Random;

/// A place on the network: nodes from 0 on, clients behind them.
pub(super) type Place = usize;

/// What a packet is, for a law that tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Reply,
}

/// What share of its packets a link loses that stays lossy when the other faults end.
const LOSSY: f64 = 0.2;

/// How bad the links of a run are.
#[derive(Clone, Debug)]
pub(super) struct Quality {
    pub loss: f64,
    /// How often a bit of a packet between two nodes flips on the way.
    pub corruption: f64,
    pub duplicate: f64,
    pub least_delay: Time,
    pub mean_delay: Time,
    /// Whether packets may overtake each other.
    pub reorder: bool,
}

impl Quality {
    /// Prompt links that lose nothing.
    pub fn good() -> Self {
        Self {
            loss: 0.0,
            corruption: 0.0,
            duplicate: 0.0,
            least_delay: 500,
            mean_delay: 2000,
            reorder: false,
        }
    }
}

struct Link {
    quality: Quality,
    /// No packet arrives before this, unless they may overtake each other.
    last_arrival: Time,
    cut_until: Time,
    clogged_until: Time,
}

/// All links.
pub(super) struct Network {
    places: usize,
    links: Vec<Link>,
    /// Links that stay cut for good, once faults have ended.
    severed: BTreeSet<Place>,
    /// What holds for every link in place of its quality.
    pub law: Option<Law>,
}

impl Network {
    pub fn new(places: usize, quality: &Quality, random: &mut Random) -> Self {
        let mut link = || {
            let mut quality = quality.clone();
            // Most links are alike, some are perfect and some are much worse.
            match random.below(8) {
                0 => quality.loss = 0.0,
                1 => quality.loss = (quality.loss * 4.0).min(0.6),
                2 => quality.mean_delay *= 4,
                _ => {}
            }
            Link {
                quality,
                last_arrival: 0,
                cut_until: 0,
                clogged_until: 0,
            }
        };
        Self {
            places,
            links: (0..places * places).map(|_| link()).collect(),
            severed: BTreeSet::new(),
            law: None,
        }
    }

    fn link(&mut self, from: Place, to: Place) -> &mut Link {
        &mut self.links[from * self.places + to]
    }

    pub fn cut(&mut self, from: Place, to: Place, until: Time) {
        let link = self.link(from, to);
        link.cut_until = link.cut_until.max(until);
    }

    /// Ends a cut.
    pub fn mend(&mut self, from: Place, to: Place) {
        self.link(from, to).cut_until = 0;
    }

    pub fn clog(&mut self, from: Place, to: Place, until: Time) {
        self.link(from, to).clogged_until = until;
    }

    /// Ends all faults: every link is prompt and loses nothing.
    pub fn heal(&mut self) {
        for link in &mut self.links {
            link.quality = Quality {
                loss: 0.0,
                corruption: 0.0,
                duplicate: 0.0,
                least_delay: 200,
                mean_delay: 300,
                reorder: false,
            };
            (link.cut_until, link.clogged_until, link.last_arrival) = (0, 0, 0);
        }
    }

    /// Lets a link lose packets for good.
    pub fn make_lossy(&mut self, from: Place, to: Place) {
        self.link(from, to).quality.loss = LOSSY;
    }

    /// The links that lose packets.
    pub fn lossy(&self) -> Vec<(Place, Place)> {
        let links = self.links.iter().enumerate();
        let lossy = links.filter(|(_, link)| link.quality.loss > 0.0);
        lossy
            .map(|(at, _)| (at / self.places, at % self.places))
            .collect()
    }

    /// Whether a bit of a packet that is sent now flips on the way.
    pub fn corrupts(&mut self, from: Place, to: Place, random: &mut Random) -> bool {
        let corruption = self.link(from, to).quality.corruption;
        corruption > 0.0 && random.chance(corruption)
    }

    /// Cuts a place off from everybody, for good.
    pub fn sever(&mut self, place: Place) {
        self.severed.insert(place);
    }

    pub fn is_cut(&mut self, from: Place, to: Place, now: Time) -> bool {
        let severed = self.severed.contains(&from) || self.severed.contains(&to);
        severed || self.link(from, to).cut_until > now
    }

    /// When a packet arrives that is sent at some later time, if it does. It overtakes what is sent
    /// before it, and holds up nothing.
    pub fn stray(
        &mut self,
        (from, to): (Place, Place),
        at: Time,
        random: &mut Random,
    ) -> Option<Time> {
        let quality = &self.link(from, to).quality;
        let delay = quality.least_delay + random.exponential(quality.mean_delay);
        let lost = random.chance(quality.loss) || self.is_cut(from, to, at);
        (!lost).then_some(at + delay)
    }

    /// When a packet that is sent now arrives: never, once, or twice.
    pub fn arrivals(
        &mut self,
        (from, to, kind): (Place, Place, Kind),
        now: Time,
        random: &mut Random,
    ) -> Vec<Time> {
        if self.is_cut(from, to, now) {
            return Vec::new();
        }
        if let Some(law) = &mut self.law {
            return law
                .arrival((from, to, kind), now, random)
                .into_iter()
                .collect();
        }
        let link = self.link(from, to);
        if random.chance(link.quality.loss) {
            return Vec::new();
        }
        let copies = 1 + usize::from(random.chance(link.quality.duplicate));
        let mut arrivals = Vec::with_capacity(copies);
        for copy in 0..copies {
            let quality = &link.quality;
            // A copy may be much later than the packet itself.
            let mean = quality.mean_delay * if copy == 0 { 1 } else { 10 };
            let delay = quality.least_delay + random.exponential(mean);
            let mut at = now.max(link.clogged_until) + delay;
            if !quality.reorder && copy == 0 {
                at = at.max(link.last_arrival);
                link.last_arrival = at;
            }
            arrivals.push(at);
        }
        arrivals
    }
}
