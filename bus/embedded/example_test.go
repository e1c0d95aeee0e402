package embedded_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cimbus/cimbus/bus/embedded"
)

func ExampleStart() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "cimbus")
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := embedded.Start(ctx, embedded.Options{StoreDir: filepath.Join(dir, "store")})
	if err != nil {
		fmt.Println(err)
		return
	}

	nc, err := s.Connect() // in process: no listener, no port
	if err != nil {
		fmt.Println(err)
		return
	}

	fmt.Println(nc.Status(), s.Durability())
	nc.Close()
	fmt.Println(s.Shutdown(ctx), os.RemoveAll(dir))
	// Output:
	// CONNECTED strict
	// <nil> <nil>
}
