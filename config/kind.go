package config

import (
	"fmt"
	"math"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cimbus/cimbus/subjects"
)

// kind is a type of setting, bound to the field it fills. Every source gives
// text; set reads it into the field, or says what is wrong with it and leaves
// the field alone.
type kind struct {
	name   string
	valid  string // what the text must be, as an instruction
	quoted bool   // written in quotes in the file
	list   bool   // a sequence in the file, separated by commas elsewhere
	secret bool
	set    func(c *Config, text string) (problem string)
}

type integer interface{ ~int | ~int64 }

func text(field func(*Config) *string, valid string) kind {
	return kind{name: "text", quoted: true, valid: valid,
		set: func(c *Config, text string) string {
			*field(c) = text
			return ""
		}}
}

func choice(field func(*Config) *string, words ...string) kind {
	return kind{name: "choice", quoted: true, valid: "write " + strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1],
		set: func(c *Config, text string) string {
			if !slices.Contains(words, text) {
				return "is not one of the choices"
			}
			*field(c) = text
			return ""
		}}
}

func boolean(field func(*Config) *bool) kind {
	return kind{name: "boolean", valid: "write true or false",
		set: func(c *Config, text string) string {
			v, err := strconv.ParseBool(text)
			if err != nil {
				return "is neither true nor false"
			}
			*field(c) = v
			return ""
		}}
}

func count[N integer](field func(*Config) *N, least, most int64) kind {
	return kind{name: "number", valid: fmt.Sprintf("write a whole number from %d to %d", least, most),
		set: func(c *Config, text string) string {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return "is not a whole number"
			}
			if n < least || n > most {
				return "is out of range"
			}
			*field(c) = N(n)
			return ""
		}}
}

func size[N integer](field func(*Config) *N, least, most int64) kind {
	valid := "write a size of at least " + formatSize(least)
	if most < math.MaxInt64 {
		valid += " and at most " + formatSize(most)
	}
	valid += ", as 512KiB, 64MiB or 10GiB"
	return kind{name: "size", valid: valid,
		set: func(c *Config, text string) string {
			n, ok := parseSize(text)
			if !ok {
				return "is not a size"
			}
			if n < least || n > most {
				return "is out of range"
			}
			*field(c) = N(n)
			return ""
		}}
}

// sizeOrZero takes 0 too, which stands for something.
func sizeOrZero[N integer](field func(*Config) *N, zero string, least int64) kind {
	k := size(field, least, math.MaxInt64)
	set := k.set
	k.valid = "write 0 for " + zero + ", or" + strings.TrimPrefix(k.valid, "write")
	k.set = func(c *Config, text string) string {
		if n, ok := parseSize(text); ok && n == 0 {
			*field(c) = 0
			return ""
		}
		return set(c, text)
	}
	return k
}

// percentage fills in a share from 0 to 1. Neither end can be meant: nothing would be told, or everything at all times.
func percentage(field func(*Config) *float64) kind {
	return kind{name: "percentage", valid: "write a whole percentage from 1% to 99%, as 80%",
		set: func(c *Config, text string) string {
			digits, ok := strings.CutSuffix(text, "%")
			n, err := strconv.ParseUint(digits, 10, 16)
			switch {
			case !ok || err != nil:
				return "is not a percentage"
			case n < 1 || n > 99:
				return "is out of range"
			}
			*field(c) = float64(n) / 100
			return ""
		}}
}

// share takes a share from 0 to 1, both ends included.
func share(field func(*Config) *float64) kind {
	return kind{name: "share", valid: "write a number from 0 to 1, as 0.1",
		set: func(c *Config, text string) string {
			f, err := strconv.ParseFloat(text, 64)
			switch {
			case err != nil || math.IsNaN(f):
				return "is not a number"
			case f < 0 || f > 1:
				return "is out of range"
			}
			*field(c) = f
			return ""
		}}
}

func duration(field func(*Config) *time.Duration, least time.Duration) kind {
	return kind{name: "duration", valid: fmt.Sprintf("write a duration of at least %s, as 500ms, 10s, 5m or 72h", least),
		set: func(c *Config, text string) string {
			d, err := time.ParseDuration(text)
			if err != nil {
				return "is not a duration"
			}
			if d < least {
				return "is too short"
			}
			*field(c) = d
			return ""
		}}
}

func address(field func(*Config) *string) kind {
	return kind{name: "address", quoted: true, valid: `write host:port, as 127.0.0.1:4222, with port 0 for a free one, or "" for no listener`,
		set: func(c *Config, text string) string {
			if text != "" {
				_, port, err := net.SplitHostPort(text)
				if err != nil {
					return "is not host:port"
				}
				if _, err := strconv.ParseUint(port, 10, 16); err != nil {
					return "has no port number from 0 to 65535"
				}
			}
			*field(c) = text
			return ""
		}}
}

// serverURL takes what nats.Connect takes: addresses with or without a scheme,
// separated by commas.
func serverURL(field func(*Config) *string) kind {
	schemes := []string{"nats", "tls", "ws", "wss"}
	return kind{name: "url", quoted: true, secret: true,
		valid: `write nats://host:port (or tls, ws, wss), several separated by commas, or "" for the embedded server`,
		set: func(c *Config, text string) string {
			if text != "" {
				for each := range strings.SplitSeq(text, ",") {
					each = strings.TrimSpace(each)
					if !strings.Contains(each, "://") {
						each = "nats://" + each
					}
					u, err := url.Parse(each)
					if err != nil || u.Hostname() == "" {
						return "is not a server's URL"
					}
					if !slices.Contains(schemes, u.Scheme) {
						return "has a scheme that NATS does not speak"
					}
				}
			}
			*field(c) = text
			return ""
		}}
}

// collector takes the URL of an HTTP endpoint; what else a URL may hold the exporter would leave out.
func collector(field func(*Config) *string) kind {
	return kind{name: "endpoint", quoted: true, secret: true,
		valid: `write http://host:port or https://host:port, with a path if the collector wants another than /v1/traces, or "" for none; credentials go into OTEL_EXPORTER_OTLP_HEADERS`,
		set: func(c *Config, text string) string {
			if text != "" {
				u, err := url.Parse(text)
				switch {
				case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
					return "is not the URL of an HTTP endpoint"
				case u.User != nil || u.RawQuery != "" || u.Fragment != "":
					return "holds more than host, port and path"
				}
			}
			*field(c) = text
			return ""
		}}
}

func origins(field func(*Config) *[]string) kind {
	return kind{name: "list", list: true, valid: `write origins, as ["https://desk.example.com"]; with commas between them outside the file`,
		set: func(c *Config, text string) string {
			var list []string
			for each := range strings.SplitSeq(text, ",") {
				if each = strings.TrimSpace(each); each == "" && text == "" {
					break
				}
				u, err := url.Parse(each)
				if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Scheme+"://"+u.Host != each {
					return "holds something that is not scheme://host or scheme://host:port"
				}
				list = append(list, each)
			}
			*field(c) = list
			return ""
		}}
}

func ages(field func(*Config) *map[string]time.Duration, least time.Duration) kind {
	return kind{name: "list", list: true, valid: `write tenants with a duration each, as ["acme=48h"]; with commas between them outside the file`,
		set: func(c *Config, text string) string {
			ages := map[string]time.Duration{}
			for each := range strings.SplitSeq(text, ",") {
				if each = strings.TrimSpace(each); each == "" && text == "" {
					break
				}
				tenant, span, _ := strings.Cut(each, "=")
				if _, err := subjects.Encode(tenant); err != nil {
					return "holds something that is not tenant=duration"
				}
				age, err := time.ParseDuration(span)
				switch _, twice := ages[tenant]; {
				case err != nil:
					return "holds something that is not tenant=duration"
				case age < least:
					return "holds a duration below " + least.String()
				case twice:
					return "names a tenant twice"
				}
				ages[tenant] = age
			}
			*field(c) = ages
			return ""
		}}
}

// show is text as people may see it.
func (k kind) show(text string) string {
	if !k.secret {
		return text
	}
	// Everything before the last @ of each URL may be credentials. It is cut by
	// hand, because a URL with a mistake in it is shown too.
	parts := strings.Split(text, "://")
	for i, part := range parts {
		if at := strings.LastIndexByte(part, '@'); at >= 0 {
			parts[i] = "***" + part[at:]
		}
	}
	return strings.Join(parts, "://")
}
