package cim_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/cimbus/cimbus/bus/cim"
)

func ExampleDecode() {
	e, err := cim.Decode([]byte(`{"conversationId":"c-17","cimEvent":{
		"id":"7c0f","name":"CUSTOMER_MESSAGE","type":"MESSAGE","timestamp":1700000000123,
		"channelSession":{"state":"STARTED","channel":{"channelType":{"name":"WEB"}}},
		"data":{"body":{"markdownText":"where is my parcel?"}}}}`), "")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.Name, e.ID, e.Conversation, e.Channel, e.Status(), e.Time.Format(time.RFC3339Nano))
	// Output: CUSTOMER_MESSAGE 7c0f c-17 WEB STARTED 2023-11-14T22:13:20.123Z
}

func ExampleDecode_refused() {
	_, err := cim.Decode([]byte(`{"id":"7c0f","type":"MESSAGE"}`), "")
	if invalid, ok := errors.AsType[*cim.Error](err); ok {
		fmt.Println(invalid.Reason, invalid.Field)
		fmt.Println(err)
	}
	// Output:
	// no-name name
	// name is missing: set it to the event's name, such as CUSTOMER_MESSAGE
}

func ExampleAppendDelivery() {
	e, err := cim.Decode([]byte(`{"id":"7c0f","name":"CALL_HOLD","timestamp":1700000000123,"seq":9007199254740993}`), "c-17")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", cim.AppendDelivery(nil, &e, e.Conversation, true))
	fmt.Printf("%s\n", cim.AppendDelivery(nil, &e, e.Conversation, false))
	// Output:
	// {"cimEvent":{"id":"7c0f","name":"CALL_HOLD","timestamp":1700000000123,"seq":9007199254740993},"conversationId":"c-17","id":"7c0f","channelSession":null,"status":null,"listId":null,"time":"2023-11-14T22:13:20.123Z"}
	// {"cimEvent":{"id":"7c0f","name":"CALL_HOLD","timestamp":1700000000123,"seq":9007199254740993},"conversationId":"c-17"}
}

func ExampleSubscribed() {
	body := cim.Subscribed(cim.Membership{
		ID: "7c0f", Time: time.Now(), Conversation: "c-17", Agent: "a-3", Username: "noor", Realm: "acme", Role: "PRIMARY",
	})
	e, err := cim.Decode(body, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := e.Participant()
	fmt.Println(e.Name, e.Conversation, p.Agent, p.Role, p.Realm, err)
	// Output: AGENT_SUBSCRIBED c-17 a-3 PRIMARY acme <nil>
}
