package config

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Sources is where a configuration comes from. Each overrides the ones before
// it; the defaults come first.
type Sources struct {
	File    string            // path of a YAML file, "" for none
	Environ []string          // "NAME=value", as os.Environ gives it; names without the prefix CIMBUS_ are ignored
	Flags   map[string]string // the flags that were given, by Key.Flag, without dashes
}

// Load reads the configuration. If anything is wrong with it the error is
// Problems, all of them; the Config then still holds what could be read, fit for
// Show and nothing else.
func Load(from Sources) (*Config, error) {
	var problems Problems
	keys := Keys()
	merged := layer{}
	for _, l := range []layer{
		defaults(keys),
		readFile(from.File, keys, &problems),
		readEnviron(from.Environ, keys, &problems),
		readFlags(from.Flags, keys, &problems),
	} {
		maps.Copy(merged, l)
	}

	c := &Config{}
	bad := map[string]bool{}
	for _, k := range keys {
		at := merged[k.Path]
		value := Value{Key: k.Path, Value: k.kind.show(at.text), Source: at.source}
		c.values = append(c.values, value)
		if problem := k.kind.set(c, at.text); problem != "" {
			bad[k.Path] = true
			if at.text == "" {
				problem = "is empty"
			}
			problems = append(problems, &Problem{Key: k.Path, Value: value.Value, Source: at.source, Problem: problem, Remedy: k.Valid})
		}
	}
	problems = append(problems, c.conflicts(bad)...)
	if len(problems) > 0 {
		return c, problems
	}
	return c, nil
}

func defaults(keys []Key) layer {
	l := layer{}
	for _, k := range keys {
		l.set(k.Path, k.Default, LayerDefault, "")
	}
	return l
}

func readEnviron(environ []string, keys []Key, problems *Problems) layer {
	names := map[string]Key{}
	for _, k := range keys {
		names[k.Env] = k
	}
	// By name, so that the problems have an order; stable, so that the last of
	// two entries wins.
	environ = slices.Clone(environ)
	slices.SortStableFunc(environ, func(a, b string) int { return cmp.Compare(envName(a), envName(b)) })
	l := layer{}
	for _, entry := range environ {
		name := envName(entry)
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		text := strings.TrimPrefix(entry[len(name):], "=")
		if k, ok := names[name]; ok {
			l.set(k.Path, text, LayerEnvironment, name)
		} else if !isServiceLink(name, text) {
			*problems = append(*problems, &Problem{
				Key: name, Source: Source{Layer: LayerEnvironment, Name: name}, Problem: "is not a setting", Remedy: unsetOr(name, names),
			})
		}
	}
	return l
}

func unsetOr(name string, names map[string]Key) string {
	var known []string
	for _, full := range slices.Sorted(maps.Keys(names)) {
		known = append(known, strings.TrimPrefix(full, envPrefix))
	}
	// What all have in common makes none nearer.
	if near := nearest(strings.TrimPrefix(name, envPrefix), known); near != "" {
		return "did you mean " + envPrefix + near + "? otherwise unset it"
	}
	return "unset it; `cimbus config init` writes every setting there is"
}

func envName(entry string) string {
	name, _, _ := strings.Cut(entry, "=")
	return name
}

// isServiceLink recognises the variables that Kubernetes sets in every container
// beside a service whose name starts with "cimbus". Nobody wrote them, so they
// must not keep the daemon from starting.
func isServiceLink(name, text string) bool {
	if strings.HasSuffix(name, "_PORT") && strings.Contains(text, "://") {
		return true
	}
	return regexp.MustCompile(`_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`).MatchString(name)
}

func readFlags(flags map[string]string, keys []Key, problems *Problems) layer {
	names := map[string]Key{}
	for _, k := range keys {
		if k.Flag != "" {
			names[k.Flag] = k
		}
	}
	l := layer{}
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		if k, ok := names[name]; ok {
			l.set(k.Path, flags[name], LayerFlag, "--"+name)
			continue
		}
		known := slices.Sorted(maps.Keys(names))
		remedy := "give one of --" + strings.Join(known, ", --")
		if near := nearest(name, known); near != "" {
			remedy = "did you mean --" + near + "?"
		}
		*problems = append(*problems, &Problem{
			Key: "--" + name, Source: Source{Layer: LayerFlag, Name: "--" + name}, Problem: "is not a setting", Remedy: remedy,
		})
	}
	return l
}
