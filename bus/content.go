package bus

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/cimbus/cimbus/bus/cim"
)

// Content is what the body of an event, or of a delivery, has to hold; everything it says must hold. The zero value is anything.
type Content struct {
	Text   string // somewhere in the body, as it is written there or, in strings, as it is meant; "" = anything
	Values []JSONValue
}

// JSONValue is a value at a place of a JSON document.
type JSONValue struct {
	// Path is the place as gjson has it: names and numbers with dots between them (data.body.text), * and ? within names, # for all
	// elements of an array, a query of them in parentheses. It begins at the event itself, or at what it is wrapped in.
	Path string
	// Value is compared with the value there: the text of a string, a number by its value, true, false, null, or the JSON of an object or
	// an array. Of what a path with # finds one has to be equal.
	Value string
}

// ParseJSONValue reads PATH=VALUE. An equals sign within brackets belongs to the path, any other but the first to the value.
func ParseJSONValue(text string) (JSONValue, error) {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted && depth > 0
		case quoted:
		case c == '(', c == '[', c == '{':
			depth++
		case c == ')', c == ']', c == '}':
			depth--
		case c == '=' && depth == 0:
			if i == 0 {
				return JSONValue{}, errors.New("the path is missing: write PATH=VALUE, as data.body.type=PLAIN")
			}
			return JSONValue{Path: text[:i], Value: text[i+1:]}, nil
		}
	}
	return JSONValue{}, fmt.Errorf("%q has no value: write PATH=VALUE, as data.body.type=PLAIN", text)
}

// Asks tells whether anything is asked for.
func (c Content) Asks() bool { return c.Text != "" || len(c.Values) > 0 }

// In tells whether a body holds what is asked for.
func (c Content) In(body []byte) bool {
	if c.Text != "" && !holdsText(body, c.Text) {
		return false
	}
	for _, v := range c.Values {
		if !v.in(body) {
			return false
		}
	}
	return true
}

// holdsText looks at the bytes, and where strings are written with escapes at what they mean.
func holdsText(body []byte, text string) bool {
	if bytes.Contains(body, []byte(text)) {
		return true
	}
	return bytes.IndexByte(body, '\\') >= 0 && cim.Valid(body) && means(gjson.ParseBytes(body), text)
}

// means tells whether a name or a string of a document holds text. Documents are no deeper than cim.Valid lets them be.
func means(v gjson.Result, text string) bool {
	if v.Type == gjson.String {
		return strings.Contains(v.Str, text)
	}
	found := false
	if v.IsObject() || v.IsArray() {
		v.ForEach(func(name, value gjson.Result) bool {
			found = name.Type == gjson.String && strings.Contains(name.Str, text) || means(value, text)
			return !found
		})
	}
	return found
}

// in looks at the body, and at the event in it where that is one wrapped. What is no JSON has no values.
func (v JSONValue) in(body []byte) bool {
	if v.is(gjson.GetBytes(body, v.Path)) {
		return cim.Valid(body)
	}
	if !bytes.Contains(body, []byte(`"cimEvent"`)) {
		return false
	}
	// What can be read of an event with an error is enough here.
	e, _ := cim.Decode(body, "")
	return len(e.Body) > 0 && v.is(gjson.GetBytes(e.Body, v.Path)) && cim.Valid(body)
}

func (v JSONValue) is(found gjson.Result) bool {
	switch {
	case !found.Exists():
		return false
	case found.IsArray() && strings.Contains(v.Path, "#") && v.Value != found.Raw:
		equal := false
		found.ForEach(func(_, element gjson.Result) bool {
			equal = v.equals(element)
			return !equal
		})
		return equal
	}
	return v.equals(found)
}

func (v JSONValue) equals(found gjson.Result) bool {
	switch found.Type {
	case gjson.String:
		return found.Str == v.Value
	case gjson.Number:
		if found.Raw == v.Value {
			return true
		}
		// Beyond 2^53 two numbers may be one float.
		if isInteger(found.Raw) && isInteger(v.Value) {
			return false
		}
		n, err := strconv.ParseFloat(v.Value, 64)
		return err == nil && n == found.Num
	}
	return found.Raw == v.Value
}

func isInteger(text string) bool {
	digits := strings.TrimPrefix(text, "-")
	return digits != "" && (digits == "0" || digits[0] != '0') && strings.Trim(digits, "0123456789") == ""
}
