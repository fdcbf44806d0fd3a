package syntropy

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A caller that stops waiting is told that the outcome is unknown, and Close waits
// for what it left behind.
func TestAbandonedWrite(t *testing.T) {
	db, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	begun, end := make(chan struct{}), make(chan struct{})
	ended := false
	go func() {
		<-begun
		cancel()
	}()
	err = db.carryOut(ctx, func(context.Context) error {
		close(begun)
		<-end
		ended = true
		return nil
	})
	if !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("the caller was told %v", err)
	}
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	select {
	case <-closed:
		t.Error("Close did not wait for the write")
	case <-time.After(50 * time.Millisecond):
	}
	close(end)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if !ended {
		t.Error("Close returned before the write had ended")
	}
}

func TestLevelsOfHandles(t *testing.T) {
	db, err := Open(t.TempDir(), &Options{ReadConsistency: One})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, c := range []struct {
		handle      *DB
		read, write Level
	}{
		{db, One, Quorum},
		{db.At(All), All, All},
		{db.At(All).At(Default), One, Quorum},
		{db.AtLevels(Quorum, One), Quorum, One},
		{db.AtLevels(Default, All).AtLevels(Quorum, Default), Quorum, Quorum},
	} {
		if read, write := c.handle.Levels(); read != c.read || write != c.write {
			t.Errorf("reads at %v and writes at %v, want %v and %v", read, write, c.read, c.write)
		}
	}
}
