package config

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// file reads settings out of a YAML file, node by node: only so does each keep
// the line it stands on, and are all mistakes found at once.
type file struct {
	name     string
	keys     map[string]Key
	sections map[string]bool // "nats", "streams", "streams.events", …
	known    []string        // keys and sections, sorted
	found    layer
	problems *Problems
}

func readFile(name string, keys []Key, problems *Problems) layer {
	if name == "" {
		return layer{}
	}
	body, err := os.ReadFile(name)
	if err != nil {
		*problems = append(*problems, &Problem{
			Source: Source{Layer: LayerFile, Name: name}, Problem: "cannot be read", Err: err,
			Remedy: "give the path of a readable file; `cimbus config init` writes one",
		})
		return layer{}
	}
	return parseFile(name, body, keys, problems)
}

func parseFile(name string, body []byte, keys []Key, problems *Problems) layer {
	f := file{name: name, keys: map[string]Key{}, sections: map[string]bool{}, found: layer{}, problems: problems}
	for _, k := range keys {
		f.keys[k.Path] = k
		for section := parent(k.Path); section != ""; section = parent(section) {
			f.sections[section] = true
		}
	}
	f.known = slices.AppendSeq(slices.Collect(maps.Keys(f.keys)), maps.Keys(f.sections))
	slices.Sort(f.known)

	decoder := yaml.NewDecoder(bytes.NewReader(body))
	var document, second yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return f.found
	}
	if err != nil {
		// "yaml: line 3: did not find expected key"
		f.syntax(strings.TrimPrefix(err.Error(), "yaml: "))
		return f.found
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		f.problem(&second, "", "is a second document", "keep one, without a line ---")
		return f.found
	}
	f.section("", document.Content[0])
	return f.found
}

// syntax reports what the parser could not read, with the line it gives.
func (f *file) syntax(message string) {
	at := f.name
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		if line, rest, ok := strings.Cut(rest, ": "); ok {
			at, message = at+":"+line, rest
		}
	}
	*f.problems = append(*f.problems, &Problem{
		Source: Source{Layer: LayerFile, Name: at}, Problem: "is not YAML: " + message,
		Remedy: "correct the line, or the one above it",
	})
}

// section reads the mapping at path, "" for the whole file.
func (f *file) section(path string, node *yaml.Node) {
	if isNull(node) {
		return // a section whose keys are all commented out
	}
	if node.Kind != yaml.MappingNode {
		f.problem(node, path, "is a section, not a value", "write its settings below it: "+f.children(path))
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			f.problem(key, path, "holds a key that is not a word", "write one of "+f.children(path))
			continue
		}
		name := join(path, key.Value)
		if line, ok := first[name]; ok {
			f.problem(key, name, "is there twice, before on line "+strconv.Itoa(line), "keep one")
			continue
		}
		first[name] = key.Line
		f.entry(name, key, value)
	}
}

// entry reads one key of a section: a setting, a section, or a mistake.
func (f *file) entry(path string, key, value *yaml.Node) {
	k, isKey := f.keys[path]
	switch {
	case f.sections[path]:
		f.section(path, value)
	case !isKey:
		// The key may have dots of its own.
		section := strings.TrimSuffix(strings.TrimSuffix(path, key.Value), ".")
		remedy := "remove it; there are " + f.children(section)
		if near := nearest(path, f.known); near != "" {
			remedy = "did you mean " + near + "? otherwise remove it"
		}
		f.problem(key, path, "is not a setting", remedy)
	case value.Kind == yaml.ScalarNode && !isNull(value):
		f.found.set(path, value.Value, LayerFile, f.at(value))
	case value.Kind == yaml.SequenceNode && k.kind.list:
		f.list(path, k, value)
	case isNull(value):
		f.problem(key, path, "has no value", k.Valid+", or remove the line for the default")
	case value.Kind == yaml.AliasNode:
		f.problem(key, path, "is an alias", "write the value itself")
	default:
		f.problem(key, path, "is not a single value", k.Valid)
	}
}

// list reads a sequence into the form that other sources write.
func (f *file) list(path string, k Key, node *yaml.Node) {
	var items []string
	for _, item := range node.Content {
		if item.Kind != yaml.ScalarNode || item.Value == "" || strings.Contains(item.Value, ",") {
			f.problem(item, path, "holds an item that is not a single value", k.Valid)
			return
		}
		items = append(items, item.Value)
	}
	f.found.set(path, strings.Join(items, ","), LayerFile, f.at(node))
}

func (f *file) problem(node *yaml.Node, path, problem, remedy string) {
	*f.problems = append(*f.problems, &Problem{
		Key: path, Source: Source{Layer: LayerFile, Name: f.at(node)}, Problem: problem, Remedy: remedy,
	})
}

func (f *file) at(node *yaml.Node) string {
	if node.Line == 0 {
		return f.name
	}
	return f.name + ":" + strconv.Itoa(node.Line)
}

// children are the names directly below a section, separated by commas.
func (f *file) children(section string) string {
	var names []string
	for _, path := range f.known {
		if parent(path) == section {
			names = append(names, strings.TrimPrefix(path, section+"."))
		}
	}
	return strings.Join(names, ", ")
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

func parent(path string) string {
	return path[:max(strings.LastIndexByte(path, '.'), 0)]
}

func join(section, name string) string {
	if section == "" {
		return name
	}
	return section + "." + name
}
