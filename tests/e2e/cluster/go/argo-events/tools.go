//go:build tools

package tools

import (
	_ "github.com/argoproj/argo-events/cmd"
	_ "github.com/nats-io/nats-server/v2"
)
