"""Tests of Albatros: real programs wherever they can be had, fakes only behind protocols of its own."""
