package syntropy_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"syntropy"
)

func tempDir() string {
	dir, err := os.MkdirTemp("", "syntropy-example-")
	if err != nil {
		log.Fatal(err)
	}
	return dir
}

func ExampleOpen() {
	ctx := context.Background()
	dir := tempDir()
	defer os.RemoveAll(dir)

	db, err := syntropy.Open(dir, nil) // a cluster of one, in this process
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := db.Ready(ctx); err != nil {
		log.Fatal(err)
	}

	if err := db.Put(ctx, []byte("greeting"), []byte("hello")); err != nil {
		log.Fatal(err)
	}
	value, err := db.Get(ctx, []byte("greeting"))
	fmt.Printf("%s, %v\n", value, err)

	if err := db.Delete(ctx, []byte("greeting")); err != nil {
		log.Fatal(err)
	}
	_, err = db.Get(ctx, []byte("greeting"))
	fmt.Println(errors.Is(err, syntropy.ErrNotFound))
	// Output:
	// hello, <nil>
	// true
}

func listen() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	return l
}

func Example_threeNodes() {
	ctx, dir := context.Background(), tempDir()
	defer os.RemoveAll(dir)
	ports, addrs, nodes := make([]net.Listener, 3), make([]string, 3), make([]*syntropy.DB, 3)
	for i := range ports {
		ports[i] = listen()
		addrs[i] = ports[i].Addr().String()
	}
	for i, port := range ports {
		db, err := syntropy.Open(fmt.Sprint(dir, "/", i), &syntropy.Options{PeerListener: port, Join: addrs, BootstrapExpect: 3})
		if err != nil {
			log.Fatal(err)
		}
		defer db.Close()
		nodes[i] = db
	}
	fmt.Println(nodes[0].Ready(ctx), nodes[1].Ready(ctx)) // waits until they have met
	fmt.Println(nodes[0].Put(ctx, []byte("greeting"), []byte("hello")))
	value, err := nodes[1].Get(ctx, []byte("greeting"))
	fmt.Println(string(value), err)
	// Output:
	// <nil> <nil>
	// <nil>
	// hello <nil>
}

func ExampleDB_Scan() {
	ctx := context.Background()
	dir := tempDir()
	defer os.RemoveAll(dir)
	db, err := syntropy.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := db.Ready(ctx); err != nil {
		log.Fatal(err)
	}
	pairs := []syntropy.Pair{
		{Key: []byte("apple"), Value: []byte("1")},
		{Key: []byte("pear"), Value: []byte("2"), Expires: time.Now().Add(time.Hour)},
		{Key: []byte("plum"), Value: []byte("3"), Expires: time.Now().Add(-time.Hour)}, // gone at once
	}
	if err := db.PutAll(ctx, pairs...); err != nil {
		log.Fatal(err)
	}
	for pair, err := range db.Scan(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s=%s\n", pair.Key, pair.Value)
	}
	// Unordered output:
	// apple=1
	// pear=2
}

func ExampleDB_At() {
	ctx := context.Background()
	dir := tempDir()
	defer os.RemoveAll(dir)
	db, err := syntropy.Open(dir, &syntropy.Options{WriteConsistency: syntropy.All})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	fast := db.At(syntropy.One)
	read, write := fast.Levels()
	fmt.Println(read, write)
	read, write = db.Levels()
	fmt.Println(read, write)
	if err := fast.Ready(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(fast.Put(ctx, []byte("greeting"), []byte("hello")))
	// Output:
	// one one
	// quorum all
	// <nil>
}
