{
  description = "A static binary for four platforms, built without any input and without a network";

  outputs = { self }:
    let
      # The system of the machine that builds, not of what it builds for: change it here on an arm64 machine.
      builder = "x86_64-linux";

      # What Go calls the platform of each system.
      platforms = {
        x86_64-linux = { GOARCH = "amd64"; };
        aarch64-linux = { GOARCH = "arm64"; };
        i686-linux = { GOARCH = "386"; };
        armv6l-linux = { GOARCH = "arm"; GOARM = "6"; };
      };

      hello = platform: derivation ({
        name = "hello";
        system = builder;
        builder = "/bin/sh";
        args = [ ./build.sh ];
        src = ./src;
      } // platform);
    in
    {
      packages = builtins.mapAttrs (system: platform: { hello = hello platform; }) platforms;
    };
}
