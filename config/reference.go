package config

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// width is where the reference breaks its comments.
const width = 90

// Reference writes a configuration file with every setting at its default, each
// under a comment that says what it does, what is valid, and, in parentheses, which
// environment variable and flag override it. Loading it gives the defaults.
func Reference(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Configuration of cimbus. Every setting is here with its default.\n" +
		"# The environment variable in parentheses overrides this file, the flag overrides both.\n")
	var open []string // the sections the last key was in
	for _, k := range Keys() {
		path := strings.Split(k.Path, ".")
		sections, name := path[:len(path)-1], path[len(path)-1]
		shared := 0
		for shared < len(sections) && shared < len(open) && sections[shared] == open[shared] {
			shared++
		}
		b.WriteByte('\n')
		for depth := shared; depth < len(sections); depth++ {
			b.WriteString(strings.Repeat("  ", depth) + sections[depth] + ":\n")
		}
		open = sections

		indent := strings.Repeat("  ", len(sections))
		comment(&b, indent, k.Doc)
		override := k.Env
		if k.Flag != "" {
			override += ", --" + k.Flag
		}
		comment(&b, indent, strings.ToUpper(k.Valid[:1])+k.Valid[1:]+". ("+override+")")
		b.WriteString(indent + name + ": " + k.kind.yaml(k.Default) + "\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write configuration reference: %w", err)
	}
	return nil
}

// yaml is a default as the file holds it. Defaults are plain words, so that Go's
// quotes are YAML's too.
func (k kind) yaml(text string) string {
	switch {
	case k.list:
		return "[" + text + "]"
	case k.quoted:
		return strconv.Quote(text)
	}
	return text
}

// comment writes text as comment lines of at most width.
func comment(b *strings.Builder, indent, text string) {
	line := indent + "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}
