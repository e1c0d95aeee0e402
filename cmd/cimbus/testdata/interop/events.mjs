// Events of a made-up delivery service, in the shape a channel connector publishes them.

let last = 0;

// event is a CIM event as an object; the caller may set or replace any field.
export function event(name, conversationId, fields = {}) {
  return {
    id: `interop-${++last}`,
    name,
    type: "MESSAGE",
    timestamp: Date.now(),
    conversationId,
    eventEmitter: { id: "web-connector", type: "CONNECTOR", senderName: "Web" },
    channelSession: null,
    data: { header: { sender: { senderName: "Noor Haddad" } }, body: { type: "PLAIN", markdownText: "Where is my parcel?" } },
    ...fields,
  };
}

// subject is where a service publishes an event.
export const subject = (tenant, e) => `cim.${tenant}.web.${e.name}`;
