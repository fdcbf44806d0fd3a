package memstore_test

import (
	"testing"

	"syntropy/storage/memstore"
	"syntropy/storage/storagetest"
)

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storagetest.EngineUnderTest { return underTest(memstore.New()) })
}

func underTest(e *memstore.Engine) storagetest.EngineUnderTest {
	return storagetest.EngineUnderTest{
		Engine: e,
		Crash:  func(*testing.T) storagetest.EngineUnderTest { return underTest(e.Crash()) },
	}
}
