package config_test

import (
	"fmt"

	"github.com/cimbus/cimbus/config"
)

func ExampleLoad() {
	c, err := config.Load(config.Sources{
		Environ: []string{"CIMBUS_HTTP_ADDR=", "CIMBUS_RETRY_ATTEMPTS=3"}, // os.Environ()
		Flags:   map[string]string{"durability": "balanced"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, v := range c.Show() {
		if v.Source.Layer != config.LayerDefault {
			fmt.Printf("%s = %q from %s\n", v.Key, v.Value, v.Source)
		}
	}
	// Output:
	// http.addr = "" from environment CIMBUS_HTTP_ADDR
	// durability = "balanced" from flag --durability
	// retry.attempts = "3" from environment CIMBUS_RETRY_ATTEMPTS
}

func ExampleProblems() {
	_, err := config.Load(config.Sources{
		Environ: []string{"CIMBUS_LOG_LEVL=debug"},
		Flags:   map[string]string{"nats-addr": "0.0.0.0:4222"},
	})
	fmt.Println(err)
	// Output:
	// invalid configuration, 2 problems:
	//   CIMBUS_LOG_LEVL (environment CIMBUS_LOG_LEVL) is not a setting; did you mean CIMBUS_LOG_LEVEL? otherwise unset it
	//   nats.addr "0.0.0.0:4222" (flag --nats-addr) is not on loopback, and open access exists only there; listen on 127.0.0.1, ::1 or localhost, behind a proxy that checks who connects
}
