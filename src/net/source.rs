//! Has the poll watch a type of ours by something in it: a descriptor, most often.

/// `source_of!([S, R] Channel<S, R>, |it| SourceFd(&it.stream.as_raw_fd()))`: generics, the type,
/// and what is watched for it.
#[macro_export]
macro_rules! source_of {
    ([$($generic:ident),*] $type:ty, |$it:ident| $inner:expr) => {
        impl<$($generic),*> $crate::Source for $type {
            fn register(
                &mut self,
                registry: &$crate::Registry,
                token: $crate::Token,
                interest: $crate::Interest,
            ) -> std::io::Result<()> {
                let $it = self;
                $inner.register(registry, token, interest)
            }

            fn reregister(
                &mut self,
                registry: &$crate::Registry,
                token: $crate::Token,
                interest: $crate::Interest,
            ) -> std::io::Result<()> {
                let $it = self;
                $inner.reregister(registry, token, interest)
            }

            fn deregister(&mut self, registry: &$crate::Registry) -> std::io::Result<()> {
                let $it = self;
                $inner.deregister(registry)
            }
        }
    };
}
