package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/cimbus/cimbus/config"
)

func newConfigCommand(a *app) *cobra.Command {
	return noun("config", "Write, show and check the daemon's configuration",
		newConfigInitCommand(a), newConfigShowCommand(a), newConfigValidateCommand(a))
}

func newConfigInitCommand(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "init", Short: "Write a configuration file with every setting at its default, commented", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if out == "" || out == "-" {
				return config.Reference(a.stdout)
			}
			f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if errors.Is(err, os.ErrExist) {
				return fmt.Errorf("%s is there already, and is left as it is: give --out another name, or move it away", out)
			}
			if err != nil {
				return err
			}
			return errors.Join(config.Reference(f), f.Close())
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "`file` to write, which must not be there yet (default stdout)")
	return cmd
}

func newConfigShowCommand(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "show", Short: "Show every setting in force, and where it comes from", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := config.Load(config.Sources{File: file, Environ: a.environ})
			if c == nil {
				return err
			}
			return errors.Join(a.showConfig(c), err)
		},
	}
	configFlag(cmd, &file)
	return cmd
}

func (a *app) showConfig(c *config.Config) error {
	t := table{head: []string{"SETTING", "VALUE", "SOURCE"}}
	for _, v := range c.Show() {
		if !a.json {
			value := v.Value
			if value == "" {
				value = `""`
			}
			t.rows = append(t.rows, []string{v.Key, printable(value), printable(v.Source.String())})
			continue
		}
		if err := line(a.stdout, v); err != nil {
			return err
		}
	}
	if a.json {
		return nil
	}
	return t.write(a.stdout)
}

func newConfigValidateCommand(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "validate", Short: "List everything that is wrong with the configuration", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := config.Load(config.Sources{File: file, Environ: a.environ})
			var problems config.Problems
			switch {
			case err == nil && a.json:
				return nil
			case err == nil:
				_, err = fmt.Fprintln(a.stdout, "the configuration is valid")
				return err
			case a.json && errors.As(err, &problems):
				return a.problemLines(problems)
			}
			return err
		},
	}
	configFlag(cmd, &file)
	return cmd
}

// problemLines answers with the problems, for which the exit code says that there are some.
func (a *app) problemLines(problems config.Problems) error {
	for _, p := range problems {
		err := line(a.stdout, struct {
			Key     string `json:"key"`
			Value   string `json:"value"`
			Source  string `json:"source"`
			Problem string `json:"problem"`
			Remedy  string `json:"remedy"`
		}{p.Key, p.Value, p.Source.String(), p.Problem, p.Remedy})
		if err != nil {
			return err
		}
	}
	return errReported
}

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", "", "configuration `file` (default none; the environment counts in any case)")
}
