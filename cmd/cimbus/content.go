package main

import (
	"github.com/spf13/pflag"

	"github.com/cimbus/cimbus/bus"
)

// contentHelp says what --json-path takes.
const contentHelp = `--json-path takes PATH=VALUE. The path begins at the event: names and numbers with dots between them (data.body.text,
data.header.channelData.0.key), * and ? within a name, \. for a dot in one, # for every element of an array (data.items.#.key), and
queries of them (data.items.#(key=="colour").value). The value is the text of a string, a number, true, false or null.`

// content are the flags by which commands look into bodies.
type content struct {
	text  string
	paths []string
}

func (c *content) register(flags *pflag.FlagSet) {
	flags.StringVar(&c.text, "text", "", "only with this `text` somewhere in the body, letter by letter")
	flags.StringArrayVar(&c.paths, "json-path", nil, "only with this value at this place of the body, as `PATH=VALUE`; may be repeated")
}

// holds is what the flags ask of a body.
func (c *content) holds() (bus.Content, error) {
	held := bus.Content{Text: c.text}
	for _, p := range c.paths {
		v, err := bus.ParseJSONValue(p)
		if err != nil {
			return held, usagef("--json-path: %w", err)
		}
		held.Values = append(held.Values, v)
	}
	return held, nil
}
