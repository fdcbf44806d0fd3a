#!/bin/sh
# Regenerates the Go code of peer.proto. The plugins are pinned here, so that two
# developers get the same code.
set -eu
cd "$(dirname "$0")"
GOBIN=$(mktemp -d)
export GOBIN
trap 'rm -rf "$GOBIN"' EXIT
go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
go install github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto@v0.6.1-0.20240319094008-0393e58bdf10
PATH="$GOBIN:$PATH" protoc -I . \
	--go_out=. --go_opt=paths=source_relative \
	--go-grpc_out=. --go-grpc_opt=paths=source_relative \
	--go-vtproto_out=. --go-vtproto_opt=paths=source_relative,features=marshal+unmarshal+size \
	peer.proto
