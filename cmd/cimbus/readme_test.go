package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/config"
)

// readme returns the blocks of README.md that are written in a language.
func readme(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, m[1])
	}
	require.NotEmpty(t, blocks, "README.md has nothing in %s", language)
	return blocks
}

// Snippets are the body of a function that has a ctx and returns an error.
func TestGoInTheReadmeCompiles(t *testing.T) {
	paths := map[string]string{
		"context": "context", "fmt": "fmt", "nats": "github.com/nats-io/nats.go", "jetstream": "github.com/nats-io/nats.go/jetstream",
		"bus": "github.com/cimbus/cimbus/bus", "embedded": "github.com/cimbus/cimbus/bus/embedded",
		"handlers": "github.com/cimbus/cimbus/handlers", "oncimevent": "github.com/cimbus/cimbus/handlers/oncimevent",
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	var packages []string
	folder := t.TempDir()
	for i, body := range readme(t, "go") {
		imports := `import "context"` + "\n"
		for name, path := range paths {
			if name != "context" && regexp.MustCompile(`\b`+name+`\.[A-Z]`).MatchString(body) {
				imports += fmt.Sprintf("import %q\n", path)
			}
		}
		source := fmt.Sprintf("package readme\n\n%s\nfunc Snippet(ctx context.Context) error {\n%s\nreturn nil\n}\n", imports, body)
		file := filepath.Join(folder, fmt.Sprintf("readme%d.go", i))
		require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
		// The file is in the module only as far as the compiler is told.
		pkg := fmt.Sprintf("testdata/readme%d", i)
		place, err := filepath.Abs(filepath.Join(pkg, "readme.go"))
		require.NoError(t, err)
		overlay.Replace[place] = file
		packages = append(packages, "./"+pkg)
	}
	text, err := json.Marshal(overlay)
	require.NoError(t, err)
	file := filepath.Join(folder, "overlay.json")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	args := append([]string{"build", "-overlay", file}, packages...)
	out, err := exec.Command("go", args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func TestCommandsInTheReadmeAreUnderstood(t *testing.T) {
	understood := 0
	for _, block := range readme(t, "sh") {
		for text := range strings.SplitSeq(strings.ReplaceAll(block, "go run ./cmd/cimbus ", "cimbus "), "\n") {
			text, _, _ = strings.Cut(text, " #")
			_, text, found := strings.Cut(" "+text, " cimbus ")
			if !found {
				continue
			}
			root := newRootCommand(&app{stdout: io.Discard, stderr: io.Discard})
			cmd, args, err := root.Find(strings.Fields(strings.ReplaceAll(text, `""`, "")))
			require.NoError(t, err, text)
			if strings.HasSuffix(text, `""`) {
				args = append(args, "")
			}
			require.NoError(t, cmd.ParseFlags(args), text)
			require.NoError(t, cmd.ValidateRequiredFlags(), text)
			require.NoError(t, cmd.ValidateArgs(cmd.Flags().Args()), text)
			require.NotNil(t, cmd.RunE, text)
			cmd.Flags().Visit(func(f *pflag.Flag) { require.Empty(t, f.Deprecated, text) })
			understood++
		}
	}
	require.Greater(t, understood, 10)
}

func TestConfigurationInTheReadmeIsValid(t *testing.T) {
	for _, block := range readme(t, "yaml") {
		file := filepath.Join(t.TempDir(), "cimbus.yaml")
		require.NoError(t, os.WriteFile(file, []byte(block), 0o600))
		_, err := config.Load(config.Sources{File: file})
		require.NoError(t, err)
	}
	text := strings.Join(append(readme(t, "sh"), readme(t, "json")...), "\n")
	for name := range strings.SplitSeq(text, "\n") {
		variable, _, found := strings.Cut(name, "=")
		if !found || !strings.HasPrefix(variable, "CIMBUS_") {
			continue
		}
		known := false
		for _, k := range config.Keys() {
			known = known || k.Env == variable
		}
		require.True(t, known, variable)
	}
}

// The ready line is a contract; what the README shows of it has every field of it.
func TestReadyLineInTheReadmeHasEveryField(t *testing.T) {
	var shown, announced map[string]any
	require.NoError(t, json.Unmarshal([]byte(readme(t, "json")[0]), &shown))
	text, err := json.Marshal(announcement{})
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &announced))
	require.Len(t, shown, len(announced))
	for field := range announced {
		require.Contains(t, shown, field)
	}
}

func TestHeadersAndVerbsInTheReadmeExist(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	var source strings.Builder
	for _, file := range []string{"../../bus/headers.go", "../../bus/control.go"} {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		source.Write(b)
	}
	for _, name := range regexp.MustCompile("`(Cim-[A-Za-z-]+)[`:]").FindAllStringSubmatch(string(text), -1) {
		require.Contains(t, source.String(), `"`+name[1]+`"`)
	}
}
