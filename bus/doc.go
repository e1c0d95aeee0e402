// Package bus carries customer-interaction (CIM) events over NATS JetStream: it opens or starts a server, keeps the declared
// streams in shape, publishes events and gives agents their deliveries as one ordered stream each.
//
// The road of one event:
//
//	service ──publish──▶ cim.acme.web.BOT_SUGGESTION ──▶ [CIM_EVENTS]     stored, deduplicated, replayable
//	                                                        │
//	                                   handler worker (package handlers): event → deliveries
//	                      ┌─────────────────────────────────┴────────────┐
//	                      ▼                                               ▼
//	 cim-agent.acme.<agent>.onCimEvent.<conversation>       cim-index.acme.<conversation>
//	           [CIM_DELIVERIES]                                   [CIM_INDEX]
//	                      │ republished after storage
//	                      ▼
//	 cim-live.acme.<agent>.onCimEvent.<conversation>  ──▶ agents
//
// What it promises, and where the promise ends:
//
//   - A publish that returns a Receipt is stored, as durably as the server was told to be. ErrUnknownOutcome is not a failure: the
//     event may be stored, and publishing the same event again is safe inside the duplicate window (10 minutes unless told
//     otherwise) because its message id is made of tenant, name and event id.
//   - Events of one conversation published through one Publisher are stored in that order, whatever happens to the connection or the
//     server in between. Between two publishers nothing orders but time.
//   - A full CIM_EVENTS refuses (ErrStoreFull); it never drops what it has acknowledged before its age. CIM_DELIVERIES, CIM_INDEX
//     and CIM_DEAD_LETTERS drop their oldest.
//   - A body travels byte for byte as it was published.
//   - Opening a bus never loses data: a change to a stream that would is refused with a *PlanError until it is asked for.
package bus
