package config_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/config"
)

func TestTheReferenceHoldsEveryKeyAndLoadsAsTheDefaults(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, config.Reference(&b))
	name := filepath.Join(t.TempDir(), "cimbus.yaml")
	require.NoError(t, os.WriteFile(name, b.Bytes(), 0o600))

	want, err := config.Load(config.Sources{})
	require.NoError(t, err)
	got, err := config.Load(config.Sources{File: name})
	require.NoError(t, err)
	defaults := want.Show()
	for i, v := range got.Show() {
		require.Equal(t, config.LayerFile, v.Source.Layer, "%s is not in the reference", v.Key)
		require.Equal(t, defaults[i].Value, v.Value, v.Key)
	}
	require.Equal(t, exported(*want), exported(*got))

	for line := range strings.Lines(b.String()) {
		require.LessOrEqual(t, len(strings.TrimSuffix(line, "\n")), 90, line)
		require.NotRegexp(t, `\s\n$|\t`, line)
	}
	text := strings.Join(strings.Fields(strings.ReplaceAll(b.String(), "#", " ")), " ")
	for _, k := range config.Keys() {
		require.Contains(t, text, strings.Join(strings.Fields(k.Doc), " "))
		require.Contains(t, text, k.Env)
		if k.Flag != "" {
			require.Contains(t, text, "--"+k.Flag)
		}
	}
}

// exported is the values of a Config's exported fields.
func exported(c config.Config) map[string]any {
	all := map[string]any{}
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() {
			all[f.Name] = v.Field(i).Interface()
		}
	}
	return all
}

func TestTheDeclarationIsSound(t *testing.T) {
	envs, flags, paths := map[string]bool{}, map[string]bool{}, map[string]bool{}
	closed, open := map[string]bool{}, ""
	for _, k := range config.Keys() {
		require.Regexp(t, `^[a-z]+(_[a-z]+)*(\.[a-z]+(_[a-z]+)*)*$`, k.Path)
		require.Regexp(t, `^CIMBUS_[A-Z_]+$`, k.Env)
		require.False(t, envs[k.Env] || paths[k.Path] || k.Flag != "" && flags[k.Flag], "%s is declared twice", k.Path)
		envs[k.Env], paths[k.Path], flags[k.Flag] = true, true, true
		require.Regexp(t, `\.$`, k.Doc)
		require.NotContains(t, k.Doc, "\n")
		require.NotEmpty(t, k.Type)
		require.NotEmpty(t, k.Valid)

		// The file is written in this order, so a section must not be left and
		// entered again.
		section, _, _ := strings.Cut(k.Path, ".")
		if section != open {
			require.False(t, closed[section], "%s stands apart from its section", k.Path)
			closed[open], open = true, section
		}
	}
	for path := range paths {
		for i, c := range path {
			require.False(t, c == '.' && paths[path[:i]], "%s is a key and a section", path[:i])
		}
	}
	require.Equal(t, map[string]bool{"": true, "store": true, "nats-addr": true, "nats-url": true, "websocket-addr": true, "http-addr": true, "durability": true}, flags)
}

func TestTheDeclarationFillsEveryField(t *testing.T) {
	leaves := 0
	var count func(reflect.Type)
	count = func(typ reflect.Type) {
		for f := range typ.Fields() {
			switch {
			case !f.IsExported():
			case f.Type.Kind() == reflect.Struct:
				count(f.Type)
			default:
				leaves++
			}
		}
	}
	count(reflect.TypeFor[config.Config]())
	require.Len(t, config.Keys(), leaves)
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func TestReferenceReportsAFailedWrite(t *testing.T) {
	full := errors.New("disk full")
	require.ErrorIs(t, config.Reference(brokenWriter{full}), full)
}

func TestDocsNameOnlyKeysThatExist(t *testing.T) {
	known := map[string]bool{"store_limits": true}
	for _, k := range config.Keys() {
		known[k.Path] = true
	}
	for _, k := range config.Keys() {
		for _, name := range regexp.MustCompile(`\b(?:nats|websocket|http|streams|workers|retry)\.[a-z_.]*[a-z]`).FindAllString(k.Doc, -1) {
			require.True(t, known[name], "%s names %s", k.Path, name)
		}
	}
}
