// Package storagetest is the conformance suite of storage engines, and of the
// store on top of them. An engine that passes it keeps data and trees together
// through crashes.
//
//	func TestConformance(t *testing.T) {
//		storagetest.Run(t, func(t *testing.T) storagetest.EngineUnderTest { ... })
//	}
//
// [Check] is the slow truth for one store: everything that it maintains is
// computed anew from its data rows. [Intercept] injects failures between a store
// and its engine.
package storagetest

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"syntropy/storage"
)

// EngineUnderTest is an empty engine, and the way to take its power away.
type EngineUnderTest struct {
	storage.Engine
	// Crash stops the engine as a power failure would and returns the one that
	// a restart finds: all that was durable and, as luck has it, some of what
	// came right after.
	Crash func(t *testing.T) EngineUnderTest
}

// Run runs the whole suite. open returns a new, empty engine each time and
// releases it in a cleanup of the test.
func Run(t *testing.T, open func(t *testing.T) EngineUnderTest) {
	t.Run("engine", func(t *testing.T) { runEngine(t, open) })
	t.Run("store", func(t *testing.T) { runStore(t, open) })
}

// Rand returns the random numbers of a test. Their seed is logged, and can be
// set with the environment variable SYNTROPY_TEST_SEED to repeat a failure.
func Rand(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("SYNTROPY_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SYNTROPY_TEST_SEED: %v", err)
		}
	}
	t.Logf("to repeat: SYNTROPY_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Intercept is an engine that asks before it passes calls on to another. A
// function that is nil is not asked; an error that it returns becomes the
// result of the call. Calls to snapshots are not intercepted.
type Intercept struct {
	storage.Engine
	OnGet    func(key []byte) error
	OnScan   func(lower, upper []byte) error
	OnCommit func() error // before anything of the batch is applied
	OnWait   func() error // after the batch is applied, in place of durability
}

// Get implements storage.Reader.
func (i *Intercept) Get(key []byte) ([]byte, bool, error) {
	if i.OnGet != nil {
		if err := i.OnGet(key); err != nil {
			return nil, false, err
		}
	}
	return i.Engine.Get(key)
}

// Lookup implements storage.Engine. OnGet is asked for each key.
func (i *Intercept) Lookup(keys [][]byte, visit func(i int, value []byte, found bool)) error {
	if i.OnGet != nil {
		for _, key := range keys {
			if err := i.OnGet(key); err != nil {
				return err
			}
		}
	}
	return i.Engine.Lookup(keys, visit)
}

// Scan implements storage.Reader.
func (i *Intercept) Scan(lower, upper []byte, visit func(k, v []byte) bool) error {
	if i.OnScan != nil {
		if err := i.OnScan(lower, upper); err != nil {
			return err
		}
	}
	return i.Engine.Scan(lower, upper, visit)
}

// Commit implements storage.Engine.
func (i *Intercept) Commit(b storage.Batch, sync bool) (func() error, error) {
	if i.OnCommit != nil {
		if err := i.OnCommit(); err != nil {
			return nil, err
		}
	}
	wait, err := i.Engine.Commit(b, sync)
	if err != nil || i.OnWait == nil {
		return wait, err
	}
	return func() error {
		if err := i.OnWait(); err != nil {
			_ = wait() // an engine may count on it; the failure is ours
			return err
		}
		return wait()
	}, nil
}
