//! A server's and a client's end against each other, whatever the frames, windows, credit and pieces.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What a run is made of. Both ends get the same numbers.
#[derive(Clone, Debug)]
struct Plan {
    limits: Limits,
    with_sasl: bool,
    links: Vec<LinkPlan>,
    credit: u32,
    /// How many deliveries are held back before they are settled, last first.
    held: usize,
    /// How many bytes pass at a time, over and over.
    pieces: Vec<usize>,
}

#[derive(Clone, Debug)]
struct LinkPlan {
    is_from_client: bool,
    settles_second: bool,
    messages: Vec<(usize, Settlement)>,
}

fn plans() -> impl Strategy<Value = Plan> {
    let limits =
        (512u32..1500, 1u32..12, 1usize..6, 1000usize..4000).prop_map(|(frame, window, queued, output)| Limits {
            frame_bytes_max: frame,
            session_window: window,
            queued_max: queued,
            output_bytes_max: output,
            ..Limits::default()
        });
    let settlement = prop_oneof![Just(Settlement::Settled), Just(Settlement::Unsettled), Just(Settlement::Forgotten)];
    let size = prop_oneof![3 => 0usize..60, 1 => 0usize..4000];
    let link = (any::<bool>(), any::<bool>(), vec((size, settlement), 0..12))
        .prop_map(|(is_from_client, settles_second, messages)| LinkPlan { is_from_client, settles_second, messages });
    let rest = (1u32..6, 0usize..3, vec(1usize..700, 1..8));
    (limits, any::<bool>(), vec(link, 1..4), rest).prop_map(|(limits, with_sasl, links, (credit, held, pieces))| Plan {
        limits,
        with_sasl,
        links,
        credit,
        held,
        pieces,
    })
}

/// The messages of a link, made from their places.
fn message(link: usize, index: usize, (bytes, settlement): (usize, Settlement)) -> Outgoing {
    let payload: Vec<u8> = (0..bytes).map(|at| (link * 31 + index * 7 + at) as u8).collect();
    let cut = bytes / 3;
    Outgoing {
        tag: Bytes::copy_from_slice(&[index as u8; 16]),
        message_format: index as u32,
        settlement,
        payload: vec![Bytes::copy_from_slice(&payload[..cut]), Bytes::copy_from_slice(&payload[cut..])],
    }
}

/// One end, and what its caller knows.
struct End {
    connection: Connection,
    is_client: bool,
    /// By place in the plan.
    links: Vec<Option<LinkId>>,
    next_message: Vec<usize>,
    received: Vec<Vec<(u32, Vec<u8>)>>,
    outcomes: Vec<usize>,
    held: Vec<DeliveryId>,
    said: Vec<u8>,
}

impl End {
    fn new(connection: Connection, is_client: bool, plan: &Plan) -> Self {
        let count = plan.links.len();
        Self {
            connection,
            is_client,
            links: vec![None; count],
            next_message: vec![0; count],
            received: vec![Vec::new(); count],
            outcomes: vec![0; count],
            held: Vec::new(),
            said: Vec::new(),
        }
    }

    fn place(&self, link: LinkId) -> usize {
        self.links.iter().position(|known| *known == Some(link)).unwrap()
    }

    fn is_sender(&self, plan: &Plan, place: usize) -> bool {
        plan.links[place].is_from_client == self.is_client
    }

    /// Handles every event, then does what a caller does of its own accord.
    fn turn(&mut self, plan: &Plan, now: Instant) {
        while let Some(event) = self.connection.poll_event() {
            self.handle(event, plan, now);
        }
        for place in 0..plan.links.len() {
            let Some(link) = self.links[place] else { continue };
            if self.is_sender(plan, place) {
                while let Some(&next) = plan.links[place].messages.get(self.next_message[place])
                    && self.connection.send(link, message(place, self.next_message[place], next)).is_ok()
                {
                    self.next_message[place] += 1;
                }
            } else if self.connection.credit(link) == 0 {
                self.connection.grant_credit(link, plan.credit);
            }
        }
        while self.held.len() > plan.held {
            let id = self.held.pop().unwrap();
            self.connection.settle(id, DeliveryState::Accepted);
        }
    }

    fn handle(&mut self, event: Event, plan: &Plan, now: Instant) {
        match event {
            Event::SaslMechanisms(mechanisms) => {
                let mechanism = mechanisms[0].clone();
                let init = SaslInit { mechanism, initial_response: Some(Bytes::from_static(b"1")), hostname: None };
                self.connection.sasl_init(init, now).unwrap();
            }
            Event::SaslInit(_) => self.connection.sasl_challenge(Bytes::from_static(b"2"), now).unwrap(),
            Event::SaslChallenge(_) => self.connection.sasl_response(Bytes::from_static(b"3"), now).unwrap(),
            Event::SaslResponse(_) => self.connection.sasl_outcome(SaslCode::Ok, now).unwrap(),
            Event::Open(_) if self.is_client => {
                self.connection.begin().unwrap();
            }
            Event::Open(_) => self.connection.open(Map::EMPTY, now),
            Event::Begin { session } if self.is_client => self.attach_all(session, plan),
            Event::Attach { link, attach, .. } => {
                let place: usize = attach.name.parse().unwrap();
                let rcv_settle_mode = attach.rcv_settle_mode;
                self.connection.accept_link(link, LinkTerms { rcv_settle_mode, ..LinkTerms::echo(&attach, 0) });
                self.links[place] = Some(link);
            }
            Event::Attached { link, .. } => assert!(self.links.contains(&Some(link))),
            Event::Begin { .. } | Event::Credit { .. } => {}
            Event::Delivery(delivery) => {
                let place = self.place(delivery.link);
                self.received[place].push((delivery.message_format, delivery.payload.to_vec()));
                if !delivery.is_settled {
                    self.held.push(delivery.id);
                }
            }
            Event::Outcome { link, id, state, is_settled, tag } => {
                let place = self.place(link);
                assert_eq!(state, Some(DeliveryState::Accepted));
                assert_eq!(tag.len(), 16);
                assert_eq!(is_settled, !plan.links[place].settles_second);
                self.outcomes[place] += 1;
                if !is_settled {
                    self.connection.settle(id, DeliveryState::Accepted);
                }
            }
            Event::UnknownOutcome { .. } | Event::End { .. } | Event::Detach { .. } | Event::Closed(_) => {
                panic!("{event:?}")
            }
        }
    }

    fn attach_all(&mut self, session: SessionId, plan: &Plan) {
        for (place, link) in plan.links.iter().enumerate() {
            let role = if link.is_from_client { Role::Sender } else { Role::Receiver };
            let mut terms = LinkTerms::between(Source::at("a"), Target::at("b"), 0);
            if link.settles_second {
                terms.rcv_settle_mode = ReceiverSettleMode::Second;
            }
            let name = place.to_string().as_str().into();
            self.links[place] = Some(self.connection.attach(session, name, role, terms).unwrap());
        }
    }

    /// Takes up to `count` bytes of the output.
    fn say(&mut self, count: usize, now: Instant) -> Vec<u8> {
        let output = self.connection.output();
        let bytes = output[..count.min(output.len())].to_vec();
        self.connection.handle_written(bytes.len(), now);
        self.said.extend_from_slice(&bytes);
        bytes
    }
}

struct Pair {
    client: End,
    server: End,
    now: Instant,
}

impl Pair {
    fn new(plan: &Plan) -> Self {
        let now = Instant::now();
        let limits = Arc::new(plan.limits.clone());
        let opening = ClientOpening {
            container_id: "client".into(),
            hostname: None,
            properties: Map::EMPTY,
            with_sasl: plan.with_sasl,
        };
        let client = Connection::client(Arc::clone(&limits), opening, now);
        let server = server(limits, now);
        Self { client: End::new(client, true, plan), server: End::new(server, false, plan), now }
    }

    /// Lets both talk until neither has anything to say. With nothing held back from then on, so that all is settled.
    fn run(&mut self, plan: &Plan) {
        let mut plan = plan.clone();
        for _ in 0..2 {
            let mut pieces = plan.pieces.clone().into_iter().cycle();
            let mut next = || pieces.next().unwrap();
            let mut silent = 0;
            while silent < 2 {
                let Self { client, server, now } = self;
                let has_talked = pass(client, server, &plan, next(), *now) | pass(server, client, &plan, next(), *now);
                silent = if has_talked { 0 } else { silent + 1 };
            }
            plan.held = 0;
        }
    }
}

/// Brings up to `count` bytes from one end to the other, if that reads. Returns whether there were any.
fn pass(one: &mut End, other: &mut End, plan: &Plan, count: usize, now: Instant) -> bool {
    one.turn(plan, now);
    other.turn(plan, now);
    if !other.connection.wants_input() {
        return false;
    }
    let bytes = one.say(count, now);
    other.connection.handle_input(&bytes, now);
    !bytes.is_empty()
}

fn server(limits: Arc<Limits>, now: Instant) -> Connection {
    Connection::server(limits, "server".into(), vec![Symbol::from_static("ANONYMOUS")], now)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sent_is_received_in_order_and_once(plan in plans()) {
        let mut pair = Pair::new(&plan);
        pair.run(&plan);
        let Pair { client, server, .. } = pair;
        for (place, link) in plan.links.iter().enumerate() {
            let (sender, receiver) = if link.is_from_client { (&client, &server) } else { (&server, &client) };
            let expected: Vec<(u32, Vec<u8>)> = link.messages.iter().enumerate().map(|(index, kind)| {
                (index as u32, message(place, index, *kind).payload.concat())
            }).collect();
            prop_assert_eq!(&receiver.received[place], &expected);
            let tracked = link.messages.iter().filter(|(_, settlement)| *settlement == Settlement::Unsettled);
            prop_assert_eq!(sender.outcomes[place], tracked.count());
        }
        for end in [client, server] {
            prop_assert!(end.connection.is_open());
            prop_assert_eq!((end.connection.unsettled(), end.connection.queued()), (0, 0));
            prop_assert_eq!((end.connection.queued_bytes, end.connection.unfinished_bytes), (0, 0));
            prop_assert!(end.connection.links.values().all(|link| link.in_flight == 0));
        }
    }

    #[test]
    fn bytes_cut_anywhere_give_the_same(plan in plans(), cuts in vec(1usize..400, 1..6)) {
        let mut pair = Pair::new(&plan);
        pair.run(&plan);
        let said = pair.client.said;
        let whole = replay(&plan, &said, &[said.len()]);
        prop_assert_eq!(&replay(&plan, &said, &cuts), &whole);
        prop_assert_eq!(&replay(&plan, &said, &[1]), &whole);
    }
}

/// What a server reports and says to `bytes`, if its caller accepts everything and sends nothing.
fn replay(plan: &Plan, bytes: &[u8], cuts: &[usize]) -> (Vec<Event>, Vec<u8>) {
    let now = Instant::now();
    let limits = Limits { output_bytes_max: usize::MAX, ..plan.limits.clone() };
    let mut connection = server(Arc::new(limits), now);
    let mut events = Vec::new();
    let mut rest = VecDeque::from(bytes.to_vec());
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let piece: Vec<u8> = rest.drain(..(*cut).min(rest.len())).collect();
        connection.handle_input(&piece, now);
        while let Some(event) = connection.poll_event() {
            match &event {
                Event::SaslInit(_) => connection.sasl_challenge(Bytes::from_static(b"2"), now).unwrap(),
                Event::SaslResponse(_) => connection.sasl_outcome(SaslCode::Ok, now).unwrap(),
                Event::Open(_) => connection.open(Map::EMPTY, now),
                Event::Attach { link, attach, .. } => {
                    connection.accept_link(*link, LinkTerms::echo(attach, 0));
                    connection.grant_credit(*link, 1000);
                }
                Event::Delivery(delivery) => connection.settle(delivery.id, DeliveryState::Accepted),
                _ => {}
            }
            events.push(event);
        }
    }
    let output = connection.output().to_vec();
    (events, output)
}
