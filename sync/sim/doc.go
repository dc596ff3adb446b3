// Package sim simulates whole devices.
package sim
