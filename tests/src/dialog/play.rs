//! A session with a backend that reads as strictly as the model does, and answers when the client has said a segment.

use std::collections::HashMap;

use super::Packets;
use super::model::{Answer, Deed, Heard, Model};
use super::stage::Stage;

/// What a session came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the client was told.
    pub client: String,
    /// What the backend understood.
    pub heard: Vec<Heard>,
    /// What the log heard.
    pub events: Vec<String>,
    /// Whether the gateway closed the client's connection.
    pub closed: bool,
}

/// A client and a backend that answers when the client has said a segment.
#[derive(Debug)]
pub struct Play<'a> {
    stage: Stage,
    model: Model,
    cuts: &'a [usize],
    next_cut: usize,
    client: Vec<u8>,
    deeds: Vec<Deed>,
}

impl Play<'_> {
    /// Says these segments, each when the backend has answered the one before, in pieces of these lengths (none: whole).
    ///
    /// # Panics
    /// The settings are none, or the backend understood what it may not.
    pub fn run(
        settings: &HashMap<String, String>,
        segments: &[Vec<u8>],
        answers: &[Answer],
        cuts: &[usize],
    ) -> (Outcome, Model, Stage) {
        let mut offers = settings["backend_offers"].clone();
        offers.push_str(",XCLIENT ADDR");
        let stage = Stage::new(settings, Packets::Whole).expect("settings");
        let model = Model::new(answers.to_vec(), &offers);
        let mut play = Play { stage, model, cuts, next_cut: 0, client: Vec::new(), deeds: Vec::new() };
        for segment in segments {
            for piece in play.pieces(segment) {
                play.stage.client_sends(&piece);
                play.collect();
            }
            play.settle();
        }
        play.stage.client_closes();
        play.collect();
        play.settle();
        let outcome = Outcome {
            client: String::from_utf8_lossy(&play.client).into_owned(),
            heard: play.model.heard.clone(),
            events: play.stage.events().map(str::to_owned).collect(),
            closed: play.stage.client_closed,
        };
        (outcome, play.model, play.stage)
    }

    fn pieces(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut pieces, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() && !self.cuts.is_empty() {
            let length = self.cuts[self.next_cut % self.cuts.len()].clamp(1, rest.len());
            self.next_cut += 1;
            pieces.push(rest[..length].to_vec());
            rest = &rest[length..];
        }
        if !rest.is_empty() {
            pieces.push(rest.to_vec());
        }
        pieces
    }

    /// Carries to the ends what the gateway did.
    fn collect(&mut self) {
        self.client.append(&mut self.stage.to_client);
        let bytes = std::mem::take(&mut self.stage.to_backend);
        let deeds = self.model.hear(&bytes);
        self.deeds.extend(deeds);
        if std::mem::take(&mut self.stage.backend_closed) {
            self.deeds.clear();
        }
    }

    /// Lets the backend do all it has to.
    fn settle(&mut self) {
        loop {
            if self.stage.dialling {
                self.stage.dialled("").expect("it was dialled, and all is carried");
                let banner = self.model.connected();
                self.deeds = vec![banner];
                self.collect();
            }
            if self.deeds.is_empty() {
                return;
            }
            match self.deeds.remove(0) {
                Deed::Say(bytes) => {
                    for piece in self.pieces(&bytes) {
                        self.stage.backend_sends(&piece);
                        self.collect();
                    }
                }
                Deed::Close => {
                    self.stage.backend_closes();
                    self.collect();
                    self.deeds.clear();
                }
            }
        }
    }
}
