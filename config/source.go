package config

// Layer is a kind of source. Each overrides the ones before it in this list.
type Layer string

// The layers.
const (
	LayerDefault     Layer = "default"
	LayerFile        Layer = "file"
	LayerEnvironment Layer = "environment"
	LayerFlag        Layer = "flag"
)

// Source is where a value was set.
type Source struct {
	Layer Layer
	Name  string // "cimbus.yaml:12", "CIMBUS_NATS_ADDR" or "--nats-addr"; "" for a default
}

// String is the layer and the name, quoted if it is not one plain word:
// "file cimbus.yaml:12".
func (s Source) String() string {
	if s.Name == "" {
		return string(s.Layer)
	}
	return string(s.Layer) + " " + word(s.Name)
}

// MarshalText makes String the JSON form.
func (s Source) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Value is one setting in force.
type Value struct {
	Key    string `json:"key"`
	Value  string `json:"value"` // as it was written, lists separated by commas, without credentials
	Source Source `json:"source"`
}

// Show returns every setting with its value and where that came from, in the
// order of the file. The slice is the caller's.
func (c *Config) Show() []Value { return append([]Value(nil), c.values...) }

// setting is what a source says about one key.
type setting struct {
	text   string
	source Source
}

// layer is what one source sets, by path.
type layer map[string]setting

func (l layer) set(path, text string, kind Layer, name string) {
	l[path] = setting{text: text, source: Source{Layer: kind, Name: name}}
}
