// Package config is the one definition of the settings of a node, from which
// command line flags, environment variables, the configuration file and the
// reference page docs/configuration.md all come.
//
// # Problem
//
// A setting that is defined in several places soon means several things: the
// flag has a limit that the file does not check, the page names an old default,
// a typo in a variable is silently no setting at all. And a node that starts
// with a setting other than the one meant may do so for months.
//
// # Idea
//
// Each [Setting] says what it is called, what it takes, what it means and what
// goes wrong at its extremes, and holds the one function that reads its text. A
// value is text wherever it comes from, and is read by that function:
//
//	flag          --gc-grace 240h
//	environment   SYNTROPY_GC_GRACE=240h
//	file          gc-grace: 240h            (YAML, named by --config)
//	default
//
// The first that gives a setting wins, as a whole: a list is replaced, not added
// to. [Flags.Resolve] does that and returns a [Config], which also knows where
// each value came from.
//
//	flags := config.AddFlags(cmd.Flags())
//	...
//	c, err := flags.Resolve(os.Environ())
//
// # Caveats
//
// What is not a setting is an error, never ignored: an unknown key of the file,
// and an unknown variable that begins with SYNTROPY_. All that is wrong is
// reported at once, each with its place. Whether settings make sense together,
// and with what the data directory holds, is for those who use them.
package config

//go:generate go test . -run ^TestReferenceIsUpToDate$ -update
